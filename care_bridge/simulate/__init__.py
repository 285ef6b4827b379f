"""Training pairs that people do not have: from clean images, from drawn structures, or from a recipe file.

NumPy and SciPy only. `recipe` says what is wanted, `dataset` makes it, the other modules each know one piece
of physics: `optics` the point spread function, `degrade` the camera, `structures` the sample, `isotropic` the
axial resolution, `fibre` the fibre bundle.
"""
