"""Does a bundle or package open where it is meant to open: every reader's rules, and what was really run."""

from __future__ import annotations

import os
from typing import Any

from care_bridge.built import built
from care_bridge.checking.report import CheckReport
from care_bridge.errors import InputError
from care_bridge.model_names import model_path

__all__ = ["CheckReport", "check"]


def check(path: str | os.PathLike[str], **options: Any) -> CheckReport:
    """Judge a bundle or a BioImage.IO package, of ours or of anybody.

    Parameters
    ----------
    path : path
        A bundle (zip, or a SavedModel folder), or a package: a zip or folder with rdf.yaml, or the rdf.yaml. Of the name
        of a model of the zoo the bundle that is built of it.
    **options
        See `bundles.check_bundle` and `packages.check_package`.

    Returns
    -------
    CheckReport
        Every rule and how it went; whether all readers would take it.

    Raises
    ------
    InputError
        If there is nothing at the path.
    """
    from care_bridge.checking.packages import check_package
    from care_bridge.package import is_package

    path = model_path(path)
    path = built(path, "tf1") or path
    if not path.exists():
        raise InputError(
            f"no bundle or package at {str(path)!r}; give a .zip, a folder, an rdf.yaml or a name of "
            "`care-bridge zoo list`"
        )
    if is_package(path):
        report: CheckReport = check_package(path, **options)
        return report
    from care_bridge.checking.bundles import check_bundle

    options.pop("trust", None)  # a bundle brings no Python

    return check_bundle(path, **options)
