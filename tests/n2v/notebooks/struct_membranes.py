# The steps of n2v's example "structN2V, membranes": noise of rows added, autocorrelations, a residual network.
import numpy as np
from n2v.models import N2V, N2VConfig
from n2v.utils.n2v_utils import autocorrelation
from scipy.ndimage import convolve

rng = np.random.default_rng(0)
X = (rng.random((16, 32, 32)) > 0.7).astype(np.float32)
print(np.array([autocorrelation(one) for one in X]).mean(0)[16, 16])
purenoise = np.array([convolve(rng.random((32, 32)) * 1.5, np.array([[1, 1, 1]]) / 3) for _ in X])
noisy_dataset = X + purenoise - purenoise.mean()
inds = np.arange(X.shape[0])
np.random.shuffle(inds)
X_val = noisy_dataset[inds[:4]][..., None]
X_train = noisy_dataset[inds[4:]][..., None]
config = N2VConfig(
    X_train,
    unet_kern_size=3,
    train_steps_per_epoch=2,
    train_epochs=1,
    train_loss="mse",
    batch_norm=True,
    train_batch_size=4,
    n2v_perc_pix=0.8,
    n2v_patch_shape=(32, 32),
    unet_n_first=4,
    unet_residual=True,
    n2v_manipulator="normal_withoutCP",
    n2v_neighborhood_radius=2,
    structN2Vmask=[[0, 1, 1, 1, 1, 1, 0]],
)
model = N2V(config, "my_model", basedir="models")
model.prepare_for_training(metrics=())
history = model.train(X_train, X_val)
np.save(
    "prediction.npy", np.array([model.predict(one.astype(np.float32), "YX") for one in noisy_dataset[:3]])
)
