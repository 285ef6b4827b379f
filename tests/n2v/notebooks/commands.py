# The steps of n2v's scripts trainN2V.py and predictN2V.py, for a movie.
import os
from glob import glob

import csbdeep.io
import numpy as np
from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from n2v.models import N2V, N2VConfig
from tifffile import imwrite

imwrite("movie.tif", np.random.default_rng(0).normal(120, 30, (2, 40, 36)).clip(0).astype(np.uint16))
datagen = N2V_DataGenerator()
imgs = datagen.load_imgs_from_directory(directory=".", dims="TYX", filter="*.tif")
patches = datagen.generate_patches_from_list(imgs[:1], shape=(16, 16), augment=False)
frac = int((len(patches)) * 20.0 / 100.0)
X, X_val = patches[frac:], patches[:frac]
config = N2VConfig(
    X,
    unet_kern_size=3,
    train_steps_per_epoch=2,
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=1.6,
    n2v_patch_shape=(16, 16),
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=5,
    train_learning_rate=0.0004,
    unet_n_depth=2,
    unet_n_first=4,
)
history = N2V(config=config, name="my_model", basedir="models").train(X, X_val)

model = N2V(config=None, name="my_model", basedir="models")
files = sorted(glob(os.path.join(".", "*.tif")))
for file, img in zip(files, datagen.load_imgs_from_directory(".", dims="TYX", filter="*.tif"), strict=True):
    img_ = img[..., 0]
    pred = img_.copy()
    for j in range(img_.shape[0]):
        pred[j] = model.predict(img_[j], axes="YX", n_tiles=(1, 1))
    csbdeep.io.save_tiff_imagej_compatible(file.replace(".tif", "_N2V.tif"), pred.astype(np.float32), "TYX")
np.save("prediction.npy", pred)
