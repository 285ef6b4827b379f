"""Image-restoration networks trained in Python, running in Fiji, with proof that both sides agree.

`__all__` is what is public, docs/api.md says each name in a line; every other name may move without notice.

Names are loaded when they are first used: importing this package loads neither TensorFlow nor Java.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; what runs is `_HOME`
    from care_bridge.bundle import read_bundle
    from care_bridge.checking import CheckReport, check
    from care_bridge.cluster import Cluster, open_cluster
    from care_bridge.comparing.conventions import Convention, explain
    from care_bridge.comparing.ladder import stepwise
    from care_bridge.comparing.report import ParityReport
    from care_bridge.comparing.sides import compare, recommended_options
    from care_bridge.comparing.where import Geometry, diagnose
    from care_bridge.config import CareConfig, read_config
    from care_bridge.defaults import LEVELS
    from care_bridge.errors import InputError, NotInstalledError, WorkerError
    from care_bridge.evaluate import Evaluation, Pair, read_pairs, write_report
    from care_bridge.evaluate import evaluate as evaluate_pairs
    from care_bridge.evaluate.cross import cross_evaluate
    from care_bridge.evaluate.files import evaluate_files
    from care_bridge.evaluate.profiles import Line
    from care_bridge.evaluate.reliability import interval_images
    from care_bridge.evaluate.scores import Scores, score_image
    from care_bridge.export.bioimageio import write_package
    from care_bridge.export.formats import export_model
    from care_bridge.export.import_package import import_package
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.guard import Likeness
    from care_bridge.images import Channel, Image, Volume, open_volume, read_image, write_image
    from care_bridge.inference.files import Piecewise, find_images, predict_files
    from care_bridge.inference.keras import KerasPredictor
    from care_bridge.inference.large import predict_volume
    from care_bridge.java.runtimes import install as install_runtimes
    from care_bridge.java.tf1 import Tf1Session
    from care_bridge.levels import survey, why_not
    from care_bridge.macros.lint import lint as lint_macro
    from care_bridge.macros.run import run as run_macro
    from care_bridge.macros.shipped import install as install_macros
    from care_bridge.macros.shipped import shipped as shipped_macros
    from care_bridge.macros.write import for_model as macro_for_model
    from care_bridge.network_predictor import NetworkPredictor
    from care_bridge.noise import Noise, NoiseRange, measure_noise
    from care_bridge.normalize import (
        BIOIMAGEIO,
        CSBDEEP,
        FIJI,
        NotFinitePixelsWarning,
        PercentileRule,
        SparseImageWarning,
        percentile_range,
    )
    from care_bridge.normalize import normalize as normalize_percentiles
    from care_bridge.opening import (
        Opening,
        open_guard,
        open_members,
        open_network,
        open_network_predictor,
        open_predictor,
    )
    from care_bridge.patches import (
        Foreground,
        LeakingSplitWarning,
        PatchPercentiles,
        open_patches,
        pairs_from_folders,
        sample_patches,
        save_patches,
    )
    from care_bridge.plugin.advice import advise, expected_differences
    from care_bridge.plugin.emulation import EmulatedPlugin
    from care_bridge.plugin.options import PluginOptions
    from care_bridge.plugin.plan import PluginError, PluginFailure, PluginRefusal
    from care_bridge.predictor import (
        ImagesOnly,
        Network,
        PredictOptions,
        Predictor,
        Runtime,
        UnhintedNetwork,
        apply_repeatedly,
        mean_channels,
    )
    from care_bridge.progress import bar as progress_bar
    from care_bridge.simulate.dataset import image_pairs, make_pairs, pair_stream
    from care_bridge.simulate.folder import write_pairs
    from care_bridge.simulate.pair import as_arrays
    from care_bridge.simulate.recipe import Recipe, builtin_recipes, load_recipe
    from care_bridge.sweep import Sweep, run_sweep
    from care_bridge.tiling import CsbdeepTiles, FijiTiles
    from care_bridge.training.batches import BatchSource
    from care_bridge.training.data import data_from_file, data_from_folders
    from care_bridge.training.ensemble import train_ensemble
    from care_bridge.training.fit import train
    from care_bridge.training.folder import load_model, save_model
    from care_bridge.training.from_files import train_from_files
    from care_bridge.training.unet import build as build_network
    from care_bridge.zoo.entry import find as find_zoo_model
    from care_bridge.zoo.entry import models as zoo_models

__version__ = "0.1.0"

__all__ = [
    "BIOIMAGEIO",
    "CSBDEEP",
    "FIJI",
    "LEVELS",
    "BatchSource",
    "CareConfig",
    "Channel",
    "CheckReport",
    "Cluster",
    "Convention",
    "CsbdeepTiles",
    "EmulatedPlugin",
    "Evaluation",
    "FijiTiles",
    "Foreground",
    "Geometry",
    "Image",
    "ImagesOnly",
    "InputError",
    "KerasPredictor",
    "LeakingSplitWarning",
    "Likeness",
    "Line",
    "Network",
    "NetworkPredictor",
    "Noise",
    "NoiseRange",
    "NotFinitePixelsWarning",
    "NotInstalledError",
    "Opening",
    "Pair",
    "ParityReport",
    "PatchPercentiles",
    "PercentileRule",
    "Piecewise",
    "PluginError",
    "PluginFailure",
    "PluginOptions",
    "PluginRefusal",
    "PredictOptions",
    "Predictor",
    "Recipe",
    "Runtime",
    "Scores",
    "SparseImageWarning",
    "Sweep",
    "Tf1Session",
    "UnhintedNetwork",
    "Volume",
    "WorkerError",
    "__version__",
    "advise",
    "apply_repeatedly",
    "as_arrays",
    "build_network",
    "builtin_recipes",
    "check",
    "compare",
    "cross_evaluate",
    "data_from_file",
    "data_from_folders",
    "diagnose",
    "evaluate_files",
    "evaluate_pairs",
    "expected_differences",
    "explain",
    "export_model",
    "find_images",
    "find_zoo_model",
    "image_pairs",
    "import_package",
    "install_macros",
    "install_runtimes",
    "interval_images",
    "lint_macro",
    "load_model",
    "load_recipe",
    "macro_for_model",
    "make_pairs",
    "mean_channels",
    "measure_noise",
    "normalize_percentiles",
    "open_cluster",
    "open_guard",
    "open_members",
    "open_network",
    "open_network_predictor",
    "open_patches",
    "open_predictor",
    "open_volume",
    "pair_stream",
    "pairs_from_folders",
    "percentile_range",
    "predict_files",
    "predict_volume",
    "progress_bar",
    "read_bundle",
    "read_config",
    "read_image",
    "read_pairs",
    "recommended_options",
    "run_macro",
    "run_sweep",
    "sample_patches",
    "save_model",
    "save_patches",
    "score_image",
    "shipped_macros",
    "stepwise",
    "survey",
    "train",
    "train_ensemble",
    "train_from_files",
    "why_not",
    "write_bundle",
    "write_image",
    "write_onnx",
    "write_package",
    "write_pairs",
    "write_report",
    "zoo_models",
]

_HOME = {
    "BIOIMAGEIO": "normalize",
    "CSBDEEP": "normalize",
    "FIJI": "normalize",
    "LEVELS": "defaults",
    "BatchSource": "training.batches",
    "CareConfig": "config",
    "CheckReport": "checking",
    "Convention": "comparing.conventions",
    "CsbdeepTiles": "tiling",
    "EmulatedPlugin": "plugin.emulation",
    "Evaluation": "evaluate",
    "FijiTiles": "tiling",
    "Foreground": "patches",
    "Geometry": "comparing.where",
    "Image": "images",
    "Cluster": "cluster",
    "Opening": "opening",
    "open_cluster": "cluster",
    "Channel": "images",
    "Volume": "images",
    "open_volume": "images",
    "Piecewise": "inference.files",
    "predict_volume": "inference.large",
    "ImagesOnly": "predictor",
    "InputError": "errors",
    "KerasPredictor": "inference.keras",
    "LeakingSplitWarning": "patches",
    "Line": "evaluate.profiles",
    "Network": "predictor",
    "NetworkPredictor": "network_predictor",
    "Likeness": "guard",
    "Noise": "noise",
    "NoiseRange": "noise",
    "NotFinitePixelsWarning": "normalize",
    "NotInstalledError": "errors",
    "Pair": "evaluate",
    "ParityReport": "comparing.report",
    "PatchPercentiles": "patches",
    "PercentileRule": "normalize",
    "PluginError": "plugin.plan",
    "PluginFailure": "plugin.plan",
    "PluginOptions": "plugin.options",
    "PluginRefusal": "plugin.plan",
    "PredictOptions": "predictor",
    "Predictor": "predictor",
    "Recipe": "simulate.recipe",
    "Runtime": "predictor",
    "Scores": "evaluate.scores",
    "SparseImageWarning": "normalize",
    "Sweep": "sweep",
    "Tf1Session": "java.tf1",
    "UnhintedNetwork": "predictor",
    "WorkerError": "errors",
    "advise": "plugin.advice",
    "apply_repeatedly": "predictor",
    "as_arrays": "simulate.pair",
    "build_network": "training.unet:build",
    "builtin_recipes": "simulate.recipe",
    "check": "checking",
    "compare": "comparing.sides",
    "cross_evaluate": "evaluate.cross",
    "data_from_file": "training.data",
    "data_from_folders": "training.data",
    "diagnose": "comparing.where",
    "evaluate_files": "evaluate.files",
    "evaluate_pairs": "evaluate:evaluate",
    "expected_differences": "plugin.advice",
    "explain": "comparing.conventions",
    "export_model": "export.formats",
    "find_zoo_model": "zoo.entry:find",
    "find_images": "inference.files",
    "image_pairs": "simulate.dataset",
    "import_package": "export.import_package",
    "install_macros": "macros.shipped:install",
    "install_runtimes": "java.runtimes:install",
    "interval_images": "evaluate.reliability",
    "lint_macro": "macros.lint:lint",
    "load_model": "training.folder",
    "load_recipe": "simulate.recipe",
    "macro_for_model": "macros.write:for_model",
    "make_pairs": "simulate.dataset",
    "mean_channels": "predictor",
    "measure_noise": "noise",
    "normalize_percentiles": "normalize:normalize",
    "open_guard": "opening",
    "open_members": "opening",
    "open_network": "opening",
    "open_network_predictor": "opening",
    "open_patches": "patches",
    "open_predictor": "opening",
    "pair_stream": "simulate.dataset",
    "pairs_from_folders": "patches",
    "percentile_range": "normalize",
    "predict_files": "inference.files",
    "progress_bar": "progress:bar",
    "read_bundle": "bundle",
    "read_config": "config",
    "read_image": "images",
    "read_pairs": "evaluate",
    "recommended_options": "comparing.sides",
    "run_macro": "macros.run:run",
    "run_sweep": "sweep",
    "sample_patches": "patches",
    "save_model": "training.folder",
    "save_patches": "patches",
    "score_image": "evaluate.scores",
    "shipped_macros": "macros.shipped:shipped",
    "stepwise": "comparing.ladder",
    "survey": "levels",
    "train": "training.fit",
    "train_ensemble": "training.ensemble",
    "train_from_files": "training.from_files",
    "why_not": "levels",
    "write_bundle": "export.savedmodel",
    "write_image": "images",
    "write_onnx": "export.onnx",
    "write_package": "export.bioimageio",
    "write_pairs": "simulate.folder",
    "write_report": "evaluate",
    "zoo_models": "zoo.entry:models",
}
"""Module of each public name, and after a colon what it is called there where that says too little by itself."""

_KERAS = (
    "export.bioimageio",
    "export.formats",
    "export.import_package",
    "export.onnx",
    "export.savedmodel",
    "inference.keras",
    "training.ensemble",
    "training.fit",
    "training.folder",
    "training.from_files",
    "training.unet",
)
"""Modules that need TensorFlow."""

_RENAMED = {"FijiPredictor": "EmulatedPlugin"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        import warnings

        warnings.warn(
            f"care_bridge.{name} is called care_bridge.{_RENAMED[name]} now", DeprecationWarning, stacklevel=2
        )
        name = _RENAMED[name]
    if name in _HOME:
        module, _, there = _HOME[name].partition(":")
        if module in _KERAS:
            # Keras would let TensorFlow greet, in red below the cell of a notebook.
            importlib.import_module("care_bridge.training.startup").load_tensorflow()
        return getattr(importlib.import_module(f"care_bridge.{module}"), there or name)
    raise AttributeError(f"module 'care_bridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
