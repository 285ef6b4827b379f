# The steps of n2v's example "RGB": one PNG, its alpha channel left out, a network for each channel.
import numpy as np
from csbdeep.utils import plot_history
from matplotlib import pyplot as plt
from matplotlib.image import imread, imsave
from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from n2v.models import N2V, N2VConfig

rng = np.random.default_rng(0)
imsave("data.png", rng.normal(0.5, 0.1, (96, 80, 3)).clip(0, 1))
datagen = N2V_DataGenerator()
imgs = datagen.load_imgs_from_directory(directory=".", filter="*.png", dims="YXC")
imgs[0] = imgs[0][..., :3]
patches = datagen.generate_patches_from_list(imgs, shape=(32, 32))
X = patches[:40]
X_val = patches[40:]
plt.imshow(X[0, ...])
config = N2VConfig(
    X,
    unet_kern_size=3,
    unet_n_first=4,
    unet_n_depth=1,
    train_steps_per_epoch=2,
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=5,
    n2v_patch_shape=(32, 32),
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=5,
)
model = N2V(config, "my_model", basedir="models")
history = model.train(X, X_val)
plot_history(history, ["loss", "val_loss"])

model = N2V(config=None, name="my_model", basedir="models")
img = imread("data.png")[..., :3]
pred = model.predict(img, axes="YXC")
imsave("prediction.png", np.clip(pred, 0.0, 1.0))
first = model.predict(np.moveaxis(img, -1, 0), axes="CYX")
assert first.shape == (3, 96, 80)
np.save("prediction.npy", pred)
