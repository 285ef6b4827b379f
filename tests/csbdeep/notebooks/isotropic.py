# The steps of csbdeep's example "isotropic reconstruction": data generation, training, prediction, export.
import numpy as np
from csbdeep.data import RawData, anisotropic_distortions, create_patches
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import Config, IsotropicCARE
from csbdeep.utils import Path, axes_dict, plot_history, plot_some
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)

# Data generation
subsample = 4.0
z, y, x = np.mgrid[:8, :64, :64]
stack = rng.poisson(20 + 100 * (np.sin(x / 4) * np.cos(y / 5) * np.cos(z / 2) > 0.3))
Path("data/original").mkdir(parents=True)
imwrite("data/original/stack.tif", stack.astype(np.uint16))

raw_data = RawData.from_folder(basepath="data", source_dirs=["original"], target_dir="original", axes="ZYX")
psf = np.outer(np.ones(3), np.exp(-(np.linspace(-2, 2, 9) ** 2)))
anisotropic_transform = anisotropic_distortions(subsample=subsample, psf=psf, psf_axes="YX")
X, Y, XY_axes = create_patches(
    raw_data=raw_data,
    patch_size=(1, 32, 32),
    n_patches_per_image=48,
    transforms=[anisotropic_transform],
)
z = axes_dict(XY_axes)["Z"]
X, Y, XY_axes = np.take(X, 0, axis=z), np.take(Y, 0, axis=z), XY_axes.replace("Z", "")
assert X.shape == (48, 1, 32, 32)
from csbdeep.io import save_training_data  # noqa: E402 - where the notebook has it

save_training_data("data/my_training_data.npz", X, Y, XY_axes)
for i in range(2):
    plot_some(X[i : i + 3, 0], Y[i : i + 3, 0])

# Training
(X, Y), (X_val, Y_val), axes = load_training_data("data/my_training_data.npz", validation_split=0.1)
config = Config(axes, 1, 1, unet_n_first=4, unet_kern_size=3, train_steps_per_epoch=3, train_batch_size=4)
model = IsotropicCARE(config, "my_model", basedir="models")
history = model.train(X, Y, validation_data=(X_val, Y_val), epochs=2)
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
model.export_TF()

# Prediction
x = imread("data/original/stack.tif")
model = IsotropicCARE(config=None, name="my_model", basedir="models")
restored = model.predict(x, "ZYX", subsample)
assert restored.shape == (32, 64, 64)
save_tiff_imagej_compatible(f"stack_{model.name}.tif", restored, "ZYX")
