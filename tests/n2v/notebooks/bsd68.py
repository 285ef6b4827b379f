# The steps of n2v's example "BSD68": patches of arrays, a residual network, best and last weights, eight positions.
import numpy as np
from csbdeep.utils import plot_history
from matplotlib import pyplot as plt
from n2v.models import N2V, N2VConfig

rng = np.random.default_rng(0)
X = rng.normal(120, 25, (10, 36, 36))[..., np.newaxis].astype(np.float32)
X_val = rng.normal(120, 25, (2, 36, 36))[..., np.newaxis].astype(np.float32)
plt.figure(figsize=(14, 7))
plt.imshow(X[0, ..., 0], cmap="gray")
config = N2VConfig(
    X,
    unet_kern_size=3,
    train_steps_per_epoch=2,
    train_epochs=2,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=0.8,
    n2v_patch_shape=(32, 32),
    unet_n_first=4,
    unet_residual=True,
    n2v_manipulator="uniform_withCP",
    n2v_neighborhood_radius=2,
    single_net_per_channel=False,
)
vars(config)
model = N2V(config, "my_model", basedir="models")
model.prepare_for_training(metrics=())
history = model.train(X, X_val)
print(sorted(history.history.keys()))
plt.figure(figsize=(16, 5))
plot_history(history, ["loss", "val_loss"])


def psnr(gt, img):
    return 20 * np.log10(255) - 10 * np.log10(np.mean(np.square(gt - img)))


pred = []
truth, image = rng.random((21, 30)) * 255, rng.random((21, 30)) * 255
for weights in ("weights_best.h5", "weights_last.h5"):
    model.load_weights(weights)
    for tta in (False, True) if weights == "weights_best.h5" else (False,):
        p_ = model.predict(image.astype(np.float32), "YX", tta=tta)
        pred.append(p_)
        print(np.round(psnr(truth, p_), 2))
np.save("prediction.npy", np.stack(pred))
