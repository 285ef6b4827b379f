# The steps of n2v's example "3D": one stack, patches of it, export, prediction in tiles.
import numpy as np
from csbdeep.io import save_tiff_imagej_compatible
from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from n2v.models import N2V, N2VConfig
from tifffile import imread, imwrite

imwrite("flywing.tif", np.random.default_rng(0).normal(120, 30, (10, 40, 48)).clip(0).astype(np.uint16))
datagen = N2V_DataGenerator()
imgs = datagen.load_imgs_from_directory(directory=".", dims="ZYX")
patch_shape = (8, 16, 16)
patches = datagen.generate_patches_from_list(imgs[:1], shape=patch_shape)
X = patches[:40]
X_val = patches[40:]
config = N2VConfig(
    X,
    unet_kern_size=3,
    unet_n_first=2,
    train_steps_per_epoch=2,
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=0.8,
    n2v_patch_shape=patch_shape,
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=5,
)
model = N2V(config=config, name="my_model", basedir="models")
history = model.train(X, X_val)
model.export_TF(
    name="Noise2Void - 3D",
    description="Learnt from drawn noise.",
    authors=["Ada Tester"],
    test_img=X_val[0, ...],
    axes="ZYXC",
    patch_shape=patch_shape,
)

model = N2V(config=None, name="my_model", basedir="models")
pred = model.predict(imread("flywing.tif"), axes="ZYX", n_tiles=(2, 2, 2))
save_tiff_imagej_compatible("prediction.tif", pred, "ZYX")
np.save("prediction.npy", pred)
