# The steps of n2v's example "structN2V, convallaria": a movie, rows above train and below validate, frame by frame.
import numpy as np
from csbdeep.io import save_tiff_imagej_compatible
from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from n2v.models import N2V, N2VConfig
from tifffile import imread, imwrite

imwrite("flower.tif", np.random.default_rng(0).normal(120, 30, (2, 96, 64)).clip(0).astype(np.uint16))
datagen = N2V_DataGenerator()
imgs = datagen.load_imgs_from_directory(directory=".", dims="TYX")
X = datagen.generate_patches_from_list([imgs[0][:, :64]], shape=(32, 32))
X_val = datagen.generate_patches_from_list([imgs[0][:, 64:]], shape=(32, 32))
config = N2VConfig(
    X,
    unet_kern_size=3,
    unet_n_first=4,
    train_steps_per_epoch=2,
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=0.8,
    n2v_patch_shape=(32, 32),
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=5,
    structN2Vmask=[[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]],
)
model = N2V(config, "my_model", basedir="models")
history = model.train(X, X_val)

model = N2V(config=None, name="my_model", basedir="models")
model.config.axes = "YXC"
input_train = imread("flower.tif")[..., None]
pred_train = np.array([model.predict(frame, axes="YXC", n_tiles=(1, 1, 1)) for frame in input_train[:2]])
save_tiff_imagej_compatible("pred.tif", pred_train, axes="TYXC")
np.save("prediction.npy", pred_train)
