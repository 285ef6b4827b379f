"""A model of the zoo as the BioImage Model Zoo's upload wants it, and what a person still does."""

from __future__ import annotations

import os
from pathlib import Path

from care_bridge import zips
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError
from care_bridge.files import atomic_folder, sha256, write_text
from care_bridge.zoo.building import write_zoo_package
from care_bridge.zoo.checking import COMPLETE, integrity
from care_bridge.zoo.entry import Entry

STEPS = "LAST-STEPS.md"


def stage_model(entry: Entry, out: str | os.PathLike[str]) -> str:
    """Write a model's package, zipped and unpacked, and the last steps before it is published.

    Parameters
    ----------
    entry : Entry
    out : path
        A folder to make: `package` in it is what is uploaded.

    Returns
    -------
    str
        What a person still does, as in LAST-STEPS.md.

    Raises
    ------
    InputError
        If `out` is there, or the model's card, licences or hashes are not in order: all of it at once.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{str(out)!r} is there already; name a folder that is not, or take it away")
    findings = Findings()
    integrity(entry, findings)
    if wrong := [rule for rule in findings.rules if rule.result != "passed"]:
        told = "\n".join(f"  {rule.rule}: {rule.run or rule.remedy}" for rule in wrong)
        raise InputError(f"{entry.name} is not ready to be published:\n{told}")
    with atomic_folder(out) as part:
        package, completeness, notes = write_zoo_package(entry, part / f"{entry.name}.zip")
        if notes or completeness < COMPLETE:
            raise InputError("; ".join([*notes, f"completeness {completeness:.2f}, of at least {COMPLETE}"]))
        zips.unpack(package, part / "package")
        text = _steps(entry, completeness, sha256(package))
        write_text(part / STEPS, text)
    return text


def _steps(entry: Entry, completeness: float, digest: str) -> str:
    return f"""# Publishing {entry.name}

`package/` is what the upload asks for: rdf.yaml and every file that it names. `{entry.name}.zip` is the same as one file
(SHA-256 {digest}). Completeness by the zoo's own formula: {completeness:.2f}. Its files were not changed by hand: change
the model's folder and stage it again.

What only a person does:

1. Run `care-bridge zoo check {entry.name}` on the machine that built it; every row passed.
2. Look at the card and its failures, and say aloud what the model is not for.
3. Sign in at https://bioimage.io, choose Upload, and give it the zip. The site puts your address in as the uploader's.
4. Wait for the zoo's own tests; TensorFlow 1.15 is stated on purpose (the frozen graph runs there and in 2.x).
5. Answer the reviewers; the zoo then gives the model its id, which goes into model.toml as `nickname`.
"""
