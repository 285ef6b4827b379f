# The steps of csbdeep's example "denoising2D, probabilistic": data generation, training, prediction, export.
# Tiny simulated images; only the imports differ between csbdeep and care_bridge.csbdeep.
import numpy as np
from csbdeep.data import RawData, create_patches, no_background_patches
from csbdeep.io import load_training_data, save_tiff_imagej_compatible
from csbdeep.models import CARE, Config
from csbdeep.utils import Path, axes_dict, normalize, plot_history, plot_some
from csbdeep.utils.tf import limit_gpu_memory
from matplotlib import pyplot as plt
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
np.random.seed(42)
limit_gpu_memory(None, allow_growth=True)

# Data generation
for index in range(4):
    y, x = np.mgrid[:96, :96]
    clean = 100 + 400 * (np.sin(x / (4 + index)) * np.cos(y / 5) > 0.3)
    for folder, image in (("low", rng.poisson(clean / 20) * 20), ("GT", clean)):
        Path(f"data/{folder}").mkdir(parents=True, exist_ok=True)
        imwrite(f"data/{folder}/img_{index}.tif", image.astype(np.uint16))

raw_data = RawData.from_folder(basepath="data", source_dirs=["low"], target_dir="GT", axes="YX")
X, Y, XY_axes = create_patches(
    raw_data=raw_data,
    patch_size=(32, 32),
    patch_filter=no_background_patches(0),
    n_patches_per_image=16,
    save_file="data/my_training_data.npz",
)
assert X.shape == Y.shape == (64, 1, 32, 32)
assert XY_axes == "SCYX"
plot_some(X[:4, 0], Y[:4, 0], title_list=[range(4), range(4)])

# Training
(X, Y), (X_val, Y_val), axes = load_training_data(
    "data/my_training_data.npz", validation_split=0.1, axes=XY_axes, verbose=True
)
c = axes_dict(axes)["C"]
n_channel_in, n_channel_out = X.shape[c], Y.shape[c]
config = Config(
    axes,
    n_channel_in,
    n_channel_out,
    probabilistic=True,
    unet_n_first=4,
    unet_kern_size=3,
    train_steps_per_epoch=3,
    train_batch_size=4,
)
print(config)
vars(config)
model = CARE(config, "my_model", basedir="models")
history = model.train(X, Y, validation_data=(X_val, Y_val), epochs=2)
print(sorted(history.history.keys()))
plt.figure(figsize=(16, 5))
plot_history(history, ["loss", "val_loss"], ["mse", "val_mse", "mae", "val_mae"])
model.export_TF()

# Prediction
low = imread("data/low/img_0.tif")
model = CARE(config=None, name="my_model", basedir="models")
restored = model.predict(low, "YX")
Path("results").mkdir(exist_ok=True)
save_tiff_imagej_compatible("results/restored.tif", restored, axes="YX")
assert restored.shape == low.shape

distribution = model.predict_probabilistic(low, "YX")
assert np.allclose(distribution.mean(), restored, atol=1e-3)
lower, upper = distribution.ppf(0.05), distribution.ppf(0.95)
assert np.all(lower < upper)
plot_some(np.stack([low, normalize(distribution.scale())]), pmin=2, pmax=99.8)
samples = list(distribution[:10, :10].sampling_generator(3))
line = distribution[48]
assert samples[0].shape == (10, 10)
assert line.entropy().shape == (96,)
