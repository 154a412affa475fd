"""What pyproject.toml cannot say: recipes/ and devices/ ship as edgekit_recipes and edgekit_devices."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["edgekit*"]), "edgekit_recipes", "edgekit_devices"],
    package_dir={"edgekit_recipes": "recipes", "edgekit_devices": "devices"},
)
