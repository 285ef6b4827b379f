# The steps of csbdeep's example "upsampling3D": data generation, training, prediction, export.
import numpy as np
from csbdeep.data import RawData, anisotropic_distortions, create_patches
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import Config, UpsamplingCARE
from csbdeep.utils import Path, axes_dict, plot_history, plot_some
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)

# Data generation
subsample = 2.0
for folder in ("low", "GT"):
    Path(f"data/{folder}").mkdir(parents=True)
for index in range(2):
    z, y, x = np.mgrid[:16, :48, :48]
    clean = 50 + 500 * (np.sin(x / (3 + index)) * np.cos(y / 4) * np.cos(z / 3) > 0.3)
    imwrite(f"data/GT/stack{index}.tif", clean.astype(np.uint16))
    imwrite(f"data/low/stack{index}.tif", (rng.poisson(clean / 50) * 50).astype(np.uint16))

raw_data = RawData.from_folder(basepath="data", source_dirs=["low"], target_dir="GT", axes="ZYX")
anisotropic_transform = anisotropic_distortions(
    subsample=subsample, psf=None, subsample_axis="Z", yield_target="target"
)
X, Y, XY_axes = create_patches(
    raw_data=raw_data,
    patch_size=(8, 16, 16),
    n_patches_per_image=24,
    transforms=[anisotropic_transform],
    save_file="data/my_training_data.npz",
)
plot_some(X[:2, 0], Y[:2, 0])

# Training
(X, Y), (X_val, Y_val), axes = load_training_data("data/my_training_data.npz", validation_split=0.2)
c = axes_dict(axes)["C"]
config = Config(axes, X.shape[c], Y.shape[c], unet_n_first=4, train_steps_per_epoch=2, train_batch_size=2)
model = UpsamplingCARE(config, "my_model", basedir="models")
history = model.train(X, Y, validation_data=(X_val, Y_val), epochs=2)
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
model.export_TF()

# Prediction
x = imread("data/low/stack0.tif")[::2]
model = UpsamplingCARE(config=None, name="my_model", basedir="models")
restored = model.predict(x, "ZYX", subsample)
assert restored.shape == (16, 48, 48)
save_tiff_imagej_compatible(f"stack0_{model.name}.tif", restored, "ZYX")
