"""The macros and scripts for Fiji: list them, check anybody's macro, put ours into a Fiji, write one for a model."""

from care_bridge.macros.bundle import write_fiji_zip
from care_bridge.macros.lint import DEEPIMAGEJ, OPTIONS, Finding, lint
from care_bridge.macros.run import Ending, run
from care_bridge.macros.shipped import (
    INSTALLED_LIST,
    MACRO_FOLDER,
    MENU_FOLDER,
    PYTHON_FILE,
    Shipped,
    fiji_root,
    find_shipped,
    install,
    install_onnx,
    macros_folder,
    shipped,
    uninstall,
)
from care_bridge.macros.write import Generated, for_model
from care_bridge.plugin.options import COMMAND as PLUGIN

__all__ = [
    "DEEPIMAGEJ",
    "INSTALLED_LIST",
    "MACRO_FOLDER",
    "MENU_FOLDER",
    "OPTIONS",
    "PLUGIN",
    "PYTHON_FILE",
    "Ending",
    "Finding",
    "Generated",
    "Shipped",
    "fiji_root",
    "find_shipped",
    "for_model",
    "install",
    "install_onnx",
    "lint",
    "macros_folder",
    "run",
    "shipped",
    "uninstall",
    "write_fiji_zip",
]
