"""Defaults that the API and the command line share; imports nothing heavy, so that the command line copies no constant."""

from __future__ import annotations

from typing import Final, Literal

# Fiji and TensorFlow 1.x ---------------------------------------------------------------------------------------

LEVEL = "best"
"""How much of Fiji is wanted: the strongest level that is there."""

LEVELS = ("fiji", "imagej", "tf1", "onnx", "emulation")
"""How much of Fiji there can be, strongest first."""

TF1_VERSION = "1.15.0"
"""TensorFlow of the CSBDeep update site; the other one that Fiji users have is 1.12.0."""

TF1_VERSIONS = ("1.12.0", "1.13.1", "1.14.0", TF1_VERSION)
"""Every TensorFlow that the CSBDeep plugin may find in somebody's Fiji and that runs here, oldest first."""

TF1_OF_FIJI = ("1.12.0", TF1_VERSION)
"""What the TensorFlow and the CSBDeep update site of Fiji bring: a bundle is judged in both."""

OLDEST_TF1 = "1.12.0"
"""The oldest of them, which a bundle must open in unless a person says otherwise."""

# Comparing and evaluating --------------------------------------------------------------------------------------

APPLICATIONS = 2
"""How many times in a row a network is applied where repeated application is judged."""

TOLERANCE = 1e-5
"""Largest difference allowed after one application, on the normalised scale (5e-7 is what is seen)."""

TOLERANCE_REPEATED = 5e-5
"""The same after two or more applications: each application passes on the differences of those before it."""

INTERVAL = 0.9
"""Mass of the interval that is drawn for a probabilistic model."""

# Predicting ----------------------------------------------------------------------------------------------------

RESULT_NAME = "{file_path}/{file_name}{file_ext}"
"""What csbdeep's care_predict calls a result."""

OME_ZARRS = ("0.4", "0.5")
"""Versions of OME-Zarr that are written: in zarr 2, which Fiji's readers know longest, and in zarr 3, which can shard."""

OME_ZARR = "0.5"

MEMORY_GIB = 2.0
"""What a process that restores piece by piece takes, as far as it can be told before."""

# Training ------------------------------------------------------------------------------------------------------

KIND: Final = "CARE"
"""csbdeep's class of a model."""

METHOD: Final = "care"
"""How a network learns: from pairs."""

PRESET = "csbdeep"

PRECISION: Final = "float32"

PRECISIONS = ("float32", "bfloat16")

PATCHES_PER_IMAGE = 64

TargetScale = Literal["source", "fitted", "own"]
"""How targets are scaled: by their source's percentiles, by a fit to their normalised source, by percentiles of their
own (csbdeep)."""

PATCH_2D = (64, 64)
"""Of a 2-D network, in pixels, where neither a preset nor a person says otherwise: csbdeep's examples."""

SEED: Final = 0

DEMO_EPOCHS = 12
"""Epochs of 100 steps that the demo trains."""
