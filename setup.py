"""What pyproject.toml cannot say: the models of model_zoo are installed inside the package."""

from setuptools import find_namespace_packages, setup

MODELS = "care_bridge.zoo.models"

setup(
    packages=[*find_namespace_packages(include=["care_bridge*", "fiji_macros"]), MODELS],
    package_dir={MODELS: "model_zoo"},
)
