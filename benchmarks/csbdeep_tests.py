"""Runs csbdeep's own tests against `care_bridge.csbdeep`: every import that it has is swapped.

    git clone --depth 1 https://github.com/CSBDeep/CSBDeep
    python benchmarks/csbdeep_tests.py CSBDeep/tests [-k part_of_a_name ...]

The tests are copied into a temporary folder and changed there. Names that `care_bridge.csbdeep` lacks stay
csbdeep's, and are printed: its inner parts (`csbdeep.internals`), which then test csbdeep itself.
docs/from-csbdeep.md lists what fails on purpose.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_IMPORT = re.compile(r"^from csbdeep(\.[\w.]+) import (.+)$", re.M)


def swapped(text: str) -> tuple[str, list[str]]:
    """A test file that imports from `care_bridge.csbdeep` what is there, and the names that are not."""
    kept: list[str] = []

    def swap(found: re.Match[str]) -> str:
        module, names = found[1], [name.strip() for name in found[2].split(",")]
        here = [name for name in names if _has(module, name.split(" as ")[0])]
        there = [name for name in names if name not in here]
        kept.extend(f"csbdeep{module}.{name}" for name in there)
        lines = [f"from care_bridge.csbdeep{module} import {', '.join(here)}"] if here else []
        return "\n".join(lines + ([f"from csbdeep{module} import {', '.join(there)}"] if there else []))

    return _IMPORT.sub(swap, text), kept


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(f"care_bridge.csbdeep{module}"), name)
    except ModuleNotFoundError:
        return False


def main() -> int:
    """Swap, run, and give pytest's exit code back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", type=Path, help="csbdeep's folder of tests")
    arguments, of_pytest = parser.parse_known_args()
    files = sorted(arguments.tests.glob("test_*.py"))
    if not files:
        parser.error(f"no test_*.py in {arguments.tests}")
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            text, kept = swapped(file.read_text(encoding="utf-8"))
            (Path(folder) / file.name).write_text(text, encoding="utf-8")
            print(f"{file.name}: still csbdeep's: {', '.join(kept) or 'nothing'}")
        # So that no settings of a folder above are taken.
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder, *of_pytest]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
