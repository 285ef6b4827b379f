# The steps of csbdeep's example "denoising3D": data generation, training, prediction, export.
import numpy as np
from csbdeep.data import RawData, create_patches
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import CARE, Config
from csbdeep.utils import Path, axes_dict, plot_history, plot_some
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)

# Data generation
for index in range(2):
    z, y, x = np.mgrid[:12, :48, :48]
    clean = 50 + 500 * (np.sin(x / (3 + index)) * np.cos(y / 4) * np.cos(z / 3) > 0.3)
    for folder, image in (("low", rng.poisson(clean / 50) * 50), ("GT", clean)):
        Path(f"data/{folder}").mkdir(parents=True, exist_ok=True)
        imwrite(f"data/{folder}/stack{index}.tif", image.astype(np.uint16))

raw_data = RawData.from_folder(basepath="data", source_dirs=["low"], target_dir="GT", axes="ZYX")
X, Y, XY_axes = create_patches(
    raw_data=raw_data, patch_size=(8, 16, 16), n_patches_per_image=24, save_file="data/my_training_data.npz"
)
assert XY_axes == "SCZYX"
for i in range(2):
    plot_some(X[i : i + 2, 0], Y[i : i + 2, 0])

# Training
(X, Y), (X_val, Y_val), axes = load_training_data("data/my_training_data.npz", validation_split=0.2)
c = axes_dict(axes)["C"]
config = Config(
    axes, X.shape[c], Y.shape[c], unet_n_first=4, train_steps_per_epoch=2, train_epochs=2, train_batch_size=2
)
model = CARE(config, "my_model", basedir="models")
history = model.train(X, Y, validation_data=(X_val, Y_val))
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
model.export_TF()

# Prediction
x = imread("data/low/stack0.tif")
model = CARE(config=None, name="my_model", basedir="models")
restored = model.predict(x, "ZYX", n_tiles=(1, 2, 2))
assert restored.shape == x.shape
assert np.allclose(restored, model.predict(x, "ZYX"), atol=1e-2)
save_tiff_imagej_compatible(f"stack0_{model.name}.tif", restored, "ZYX")
plot_some(np.stack([x, restored]), title_list=[["low (maximum projection)", "CARE"]], pmin=2, pmax=99.8)
