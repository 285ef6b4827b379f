"""What the documents tell people to type exists: every command with its options, every name in Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from care_bridge.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "model_zoo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command_lines(text: str) -> list[str]:
    """Lines (with those they go on in) and code spans that begin with care-bridge."""
    text = re.sub(r" \\\n +", " ", text)
    lines = re.findall(r"^    (care-bridge .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    spans = re.findall(r"`(care-bridge [^`]+)`", text)
    return [line for line in (*lines, *spans) if "..." not in line and "|" not in line]


def python_blocks(text: str) -> list[str]:
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", text, re.MULTILINE)
    return [
        re.sub(r"^    ", "", block, flags=re.MULTILINE)
        for block in blocks
        if "import care_bridge" in block or "from care_bridge" in block
    ]


COMMANDS = [
    (path.name, line) for path in DOCUMENTS for line in command_lines(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_every_command_that_a_document_shows_exists_with_its_options(document: str, line: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    path = []
    command = group
    while words and hasattr(command, "commands") and words[0] in command.commands:
        path.append(words[0])
        command = command.commands[words.pop(0)]
    assert path, f"{document}: no command in {line!r}"
    assert not hasattr(command, "commands"), f"{document}: {line!r} names no command of {path}"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.split("=")[0] for word in words if word.startswith("--")]
    assert not set(used) - known - {"--help"}, f"{document}: {line!r}"


@pytest.mark.tf
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from care_bridge import CareConfig, Image, write_bundle, write_image
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    monkeypatch.chdir(tmp_path)
    # The readme compares at the best level there is; without Java and Fiji that is the emulation.
    monkeypatch.setattr("care_bridge.levels.LEVELS", ("emulation",))
    config = CareConfig(axes="YX", unet_n_first=8, unet_kern_size=3)
    save_model("models/mito", config, build(config))
    write_bundle("models/mito", "models/mito/fiji.zip")
    write_image("cell.tif", Image(np.random.default_rng(0).poisson(9, (40, 44)).astype(np.uint16), "YX"))
    blocks = python_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "parity.html").is_file()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_architecture_names_every_part_of_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "care_bridge"
    parts = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    named = set(re.findall(r"`(\w+)`", text))
    assert not parts - {"__init__"} - named


def test_the_example_of_the_model_zoo_is_complete_metadata() -> None:
    from care_bridge.export.metadata import read_card

    assert read_card(ROOT / "model_zoo" / "example.toml").task == "denoising"
