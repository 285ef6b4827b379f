# The steps of csbdeep's example "denoising2D": data generation, training, prediction, export.
import matplotlib.pyplot as plt
import numpy as np
from csbdeep.data import (
    RawData,
    create_patches,
    no_background_patches,
    norm_percentiles,
    sample_percentiles,
)
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import CARE, Config
from csbdeep.utils import Path, axes_dict, normalize, plot_history, plot_some
from csbdeep.utils.tf import limit_gpu_memory
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)
limit_gpu_memory(fraction=None)

# Data generation
for index in range(12):
    y, x = np.mgrid[:64, :64]
    clean = 100 + 400 * (np.sin(x / (4 + index)) * np.cos(y / 5) > 0.3)
    for folder, image in (("low", rng.poisson(clean / 20) * 20), ("GT", clean)):
        Path(f"data/train/{folder}").mkdir(parents=True, exist_ok=True)
        imwrite(f"data/train/{folder}/img_{index:04d}.tif", image.astype(np.uint16))

raw_data = RawData.from_folder(basepath="data/train", source_dirs=["low"], target_dir="GT", axes="YX")
X, Y, XY_axes = create_patches(
    raw_data=raw_data,
    patch_size=(32, 32),
    patch_filter=no_background_patches(0),
    n_patches_per_image=2,
    normalization=norm_percentiles(sample_percentiles((1, 3), (99.5, 99.9))),
    save_file="data/my_training_data.npz",
)
assert X.shape == Y.shape
print("shape of X,Y =", X.shape, "axes of X,Y =", XY_axes)
for i in range(2):
    plt.figure(figsize=(16, 4))
    sl = slice(8 * i, 8 * (i + 1)), 0
    plot_some(X[sl], Y[sl], title_list=[np.arange(sl[0].start, sl[0].stop)])
    plt.show()

# Training
(X, Y), (X_val, Y_val), axes = load_training_data(
    "data/my_training_data.npz", validation_split=0.05, verbose=True
)
c = axes_dict(axes)["C"]
n_channel_in, n_channel_out = X.shape[c], Y.shape[c]
plt.figure(figsize=(12, 5))
plot_some(X_val[:5], Y_val[:5])
config = Config(
    axes,
    n_channel_in,
    n_channel_out,
    unet_kern_size=3,
    unet_n_first=4,
    train_batch_size=8,
    train_epochs=2,
    train_steps_per_epoch=2,
)
print(config)
vars(config)
model = CARE(config, "my_model", basedir="models")
model.keras_model.summary()
history = model.train(X, Y, validation_data=(X_val, Y_val))
print(sorted(history.history.keys()))
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
plt.figure(figsize=(20, 12))
_P = model.keras_model.predict(X_val[:5])
if config.probabilistic:
    _P = _P[..., : (_P.shape[-1] // 2)]
plot_some(X_val[:5], Y_val[:5], _P, pmax=99.5)
model.export_TF()

# Prediction
y = imread("data/train/GT/img_0010.tif")
x = imread("data/train/low/img_0010.tif")
model = CARE(config=None, name="my_model", basedir="models")
restored = model.predict(x, "YX")
Path("results").mkdir(exist_ok=True)
save_tiff_imagej_compatible(f"results/{model.name}_img_0010.tif", restored, "YX")
plot_some(np.stack([x, restored, y]), title_list=[["low", "CARE", "GT"]], pmin=2, pmax=99.8)
for _x, _name in zip((x, restored, y), ("low", "CARE", "GT"), strict=True):
    plt.plot(normalize(_x, 1, 99.7)[32], label=_name, lw=2)
plt.legend()
