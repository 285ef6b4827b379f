# The steps of n2v's example "SEM": one image trains, the other validates; export, then prediction in tiles.
import numpy as np
from csbdeep.io import save_tiff_imagej_compatible
from csbdeep.utils import plot_history
from matplotlib import pyplot as plt
from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from n2v.models import N2V, N2VConfig
from tifffile import imread, imwrite

rng = np.random.default_rng(0)
for name in ("train", "validation"):
    imwrite(f"{name}.tif", rng.normal(120, 30, (96, 70)).clip(0).astype(np.uint8))
datagen = N2V_DataGenerator()
imgs = datagen.load_imgs_from_directory(directory="./")
print(imgs[0].shape, imgs[1].shape)
plt.imshow(imgs[0][0, ..., 0], cmap="magma")
patch_shape = (32, 32)
X = datagen.generate_patches_from_list(imgs[:1], shape=patch_shape)
X_val = datagen.generate_patches_from_list(imgs[1:], shape=patch_shape)
config = N2VConfig(
    X,
    unet_kern_size=3,
    unet_n_first=4,
    train_steps_per_epoch=int(X.shape[0] / 16),
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=16,
    n2v_perc_pix=1.6,
    n2v_patch_shape=(32, 32),
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=5,
)
model = N2V(config, "my_model", basedir="models")
history = model.train(X, X_val)
plot_history(history, ["loss", "val_loss"])
model.export_TF(
    name="Noise2Void - SEM",
    description="Learnt from drawn noise.",
    authors=["Ada Tester", "Bert Tester"],
    test_img=X_val[0, ...],
    axes="YXC",
    patch_shape=patch_shape,
)

model = N2V(config=None, name="my_model", basedir="models")
pred_train = model.predict(imread("train.tif"), axes="YX", n_tiles=(2, 1))
pred_val = model.predict(imread("validation.tif")[np.newaxis], axes="CYX", n_tiles=(1, 2, 2))
save_tiff_imagej_compatible("pred_train.tif", pred_train, axes="YX")
save_tiff_imagej_compatible("pred_validation.tif", pred_val, axes="CYX")
np.save("prediction.npy", pred_train)
