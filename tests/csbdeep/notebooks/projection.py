# The steps of csbdeep's example "projection": data generation, training, prediction, export.
import numpy as np
from csbdeep.data import RawData, create_patches_reduced_target
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import ProjectionCARE, ProjectionConfig
from csbdeep.utils import Path, axes_dict, plot_history, plot_some
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)

# Data generation
for folder in ("low", "GT"):
    Path(f"data/{folder}").mkdir(parents=True)
for index in range(3):
    y, x = np.mgrid[:48, :48]
    clean = 50 + 500 * (np.sin(x / (3 + index)) * np.cos(y / 4) > 0.3)
    height = (4 + 3 * np.sin(x / 15)).astype(int)
    stack = np.where(np.arange(8)[:, None, None] == height, clean, 50)
    imwrite(f"data/GT/stack{index}.tif", clean.astype(np.uint16))
    imwrite(f"data/low/stack{index}.tif", (rng.poisson(stack / 50) * 50).astype(np.uint16))

raw_data = RawData.from_folder(basepath="data", source_dirs=["low"], target_dir="GT", axes="ZYX")
X, Y, XY_axes = create_patches_reduced_target(
    raw_data=raw_data,
    patch_size=(None, 16, 16),
    n_patches_per_image=16,
    target_axes="YX",
    reduction_axes="Z",
    save_file="data/my_training_data.npz",
)
assert X.shape == (48, 1, 8, 16, 16)
assert Y.shape == (48, 1, 1, 16, 16)
plot_some(X[:2, 0], Y[:2, 0])

# Training
(X, Y), (X_val, Y_val), axes = load_training_data("data/my_training_data.npz", validation_split=0.2)
c = axes_dict(axes)["C"]
config = ProjectionConfig(
    axes,
    X.shape[c],
    Y.shape[c],
    unet_n_first=4,
    unet_kern_size=3,
    proj_n_depth=2,
    proj_n_filt=4,
    train_steps_per_epoch=2,
    train_batch_size=2,
)
print(config)
vars(config)
model = ProjectionCARE(config, "my_model", basedir="models")
print(model.proj_params)
history = model.train(X, Y, validation_data=(X_val, Y_val), epochs=2)
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
_P = model.keras_model.predict(X_val[:5])
if config.probabilistic:
    _P = _P[..., : (_P.shape[-1] // 2)]
plot_some(X_val[:5], Y_val[:5], _P, pmax=99.5)
model.export_TF()

# Prediction
y = imread("data/GT/stack0.tif")
x = imread("data/low/stack0.tif")
plot_some(np.stack([x, np.broadcast_to(y, x.shape)]), title_list=[["low", "high"]], pmin=2, pmax=99.8)
model = ProjectionCARE(config=None, name="my_model", basedir="models")
restored = model.predict(x, "ZYX", n_tiles=(1, 2, 2))
assert restored.shape == (48, 48)
axes_restored = "ZYX".replace(model.proj_params.axis, "")
save_tiff_imagej_compatible(f"stack0_{model.name}.tif", restored, axes_restored)
