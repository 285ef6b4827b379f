# Two commands set everything up on a machine with Python 3.11-3.13 and a shell: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
# Two at a time pays on two cores: much of a test is one thread of Python, tracing or Java's start.
WORKERS ?= 2
# A crashed worker ends the run: with another in its place, pytest-xdist 3.8 waits for ever at the end.

.PHONY: demo test test-floor check fuzz bench macros zoo zoo-index runtimes clean

demo: $(VENV)/.user runtimes
	$(BIN)/care-bridge demo --out demo

test: $(VENV)/.dev runtimes
	CARE_BRIDGE_REQUIRE_JAVA=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0 $(TESTS)

# The floor (what everything stands on) without TensorFlow and Java: the quick look while working.
FLOOR := axes config files images metrics network_predictor normalize patches progress repeatedly run tiling
test-floor: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not tf and not java" $(wildcard $(FLOOR:%=tests/test_%.py))

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_docs.py tests/test_layers.py

# Damaged and hostile files of every kind through every reader, FUZZ of each, new ones every time; what falls is left in
# .fuzz/ and belongs into tests/fuzz/found/. A short form runs with the tests.
FUZZ ?= 1000
fuzz: $(VENV)/.dev
	CARE_BRIDGE_FUZZ=$(FUZZ) $(BIN)/python -m pytest -s tests/fuzz

bench: $(VENV)/.dev runtimes
	$(BIN)/python benchmarks/run.py

# The whole, pasteable files of fiji_macros/ from fiji_macros/source/.
macros: $(VENV)/.user
	$(BIN)/python -m care_bridge.macros.generate

# Bundle, ONNX file and package of every model of model_zoo/.
zoo: $(VENV)/.user
	$(BIN)/care-bridge zoo build --out zoo

# The page of all models.
zoo-index: $(VENV)/.user
	$(BIN)/care-bridge zoo index --out model_zoo/index.html

# A model of model_zoo/ trained again by its recipe: make zoo-NAME DATA=folder, into zoo/NAME.
zoo-%: $(VENV)/.user
	$(BIN)/care-bridge zoo train $* $(if $(DATA),--data $(DATA)) --out zoo/$*

# TensorFlow 1.12 and 1.15 and ImageJ, pinned by SHA-256, once into the cache folder.
runtimes: | $(VENV)/.user
	$(BIN)/care-bridge doctor --install all

$(VENV)/.user: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[zoo]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(VENV)/.user $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "make: '$(PYTHON)' is not here; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "make: $$($(PYTHON) --version) is not supported; name a Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: this Python has no venv or pip; on Debian and Ubuntu: apt install python3-venv python3-pip"; exit 2; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) demo build dist *.egg-info
