"""What pyproject.toml cannot say: recipes/ is shipped as the package edgekit_recipes."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["edgekit*"]), "edgekit_recipes"],
    package_dir={"edgekit_recipes": "recipes"},
)
