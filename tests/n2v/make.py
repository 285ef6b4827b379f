"""Writes recorded.zip: model folders that the package n2v trained, an image each, and what n2v makes of it.

    python3.11 -m venv v && v/bin/pip install n2v==0.3.3 tensorflow-cpu==2.13.1 "csbdeep<0.8" "numpy<1.25"
    v/bin/python tests/n2v/make.py tests/n2v/recorded.zip

n2v needs Keras 2, so it cannot be installed beside today's TensorFlow.
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from n2v.models import N2V, N2VConfig

SMALL = {
    "unet_n_first": 2,
    "unet_kern_size": 3,
    "train_epochs": 1,
    "train_steps_per_epoch": 12,
    "train_batch_size": 4,
    "train_learning_rate": 0.004,
    "train_loss": "mse",
    "train_tensorboard": False,
    "n2v_perc_pix": 6.0,
}
N2V2 = {"blurpool": True, "skip_skipone": True, "n2v_manipulator": "median", "n2v_neighborhood_radius": 2}
CASES = {
    "plain": (1, (16, 16), {}),
    "joint": (2, (16, 16), {"single_net_per_channel": False}),
    "each": (2, (16, 16), {"single_net_per_channel": True}),
    "n2v2": (1, (16, 16), N2V2),
    "blurred": (1, (16, 16), {"blurpool": True}),
    "residual": (
        1,
        (16, 16),
        {"unet_residual": True, "batch_norm": False, "structN2Vmask": [[0, 1, 1, 1, 0]]},
    ),
    "volume": (1, (8, 16, 16), {}),
}


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        for name, (channels, patch, more) in CASES.items():
            rng = np.random.default_rng(1)
            wave = 30 * np.sin(np.arange(16) / 3)[:, None]

            def noisy(*shape: int) -> np.ndarray:
                levels = 100 * np.arange(1, shape[-1] + 1)
                return np.asarray(rng.normal(0, 20, shape) + levels, np.float32)  # noqa: B023 - called at once

            patches = noisy(24, *patch, channels) + wave.astype(np.float32)
            config = N2VConfig(patches[:16], n2v_patch_shape=patch, **SMALL, **more)
            N2V(config, name, basedir=folder).train(patches[:16], patches[16:])
            model = N2V(None, name, basedir=folder)
            image = noisy(*((6,) if len(patch) == 3 else ()), 13, 18, channels)
            axes = "ZYX"[-len(patch) :]
            if channels == 1:
                image = image[..., 0]
            else:
                axes += "C"
            found = {"image": image, "axes": axes, "prediction": model.predict(image, axes)}
            if name == "plain":
                found["eightfold"] = model.predict(image, axes, tta=True)
            content = io.BytesIO()
            np.savez_compressed(content, **found)
            packed.writestr(f"{name}/io.npz", content.getvalue())
            for file in ("config.json", "weights_best.h5"):
                packed.write(Path(folder) / name / file, f"{name}/{file}")


if __name__ == "__main__":
    main()
