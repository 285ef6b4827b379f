"""Training pairs that people do not have: from clean images, from drawn structures, or from a recipe file.

NumPy and SciPy only. `recipe` says what is wanted (`steps` are its pieces), `dataset` makes pairs one by one,
`folder` writes a whole set with its manifest. The others each know one piece of physics: `optics` the point spread
function, `degrade` light and camera, `structures` the sample, `isotropic` the axial resolution, `fibre` the fibre
bundle, `cores` a real one in its image.
"""
