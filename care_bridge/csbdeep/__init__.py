"""What a csbdeep notebook imports: replace ``from csbdeep`` by ``from care_bridge.csbdeep`` and it runs.

Names, order of arguments and defaults are those of csbdeep 0.8.2; the work is done by the rest of the package.
Where csbdeep does harm, this does not:

- patches come sorted by file name, with their origin, and ``load_training_data`` splits by image or block;
- ``save_tiff_imagej_compatible`` clips instead of wrapping, and says how much;
- sparse images and NaN pixels do not ruin the scale;
- ``train_tensorboard`` is off, since TensorFlow no longer brings TensorBoard;
- ``export_TF`` writes what TensorFlow 1.12 to 1.15, and so Fiji, open.

Public are the names in `__all__` of `data`, `io`, `models`, `utils`, `utils.plot_utils`, `utils.six` and
`utils.tf`, as docs/api.md lists them; they stay as long as csbdeep has them.

What is new comes as keyword arguments behind csbdeep's own: ``create_patches(..., seed=0)``,
``save_file="patches.zarr"``, ``no_background_patches(..., background=2)``.
"""
