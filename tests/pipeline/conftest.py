"""One store for the folder, so that the second test of a stage finds the first one's result."""

import sys

import numpy as np
import pytest
from PIL import Image

from edgekit.cli import main as cli


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(shared_cache, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An image folder: 4 classes of 40 pictures, told apart by colour."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k, name in enumerate(["amber", "blue", "cyan", "dun"]):
        (root / name).mkdir()
        for i in range(40):
            pixels = rng.integers(0, 90, (40, 36, 3)) + np.array([40 * k, 90, 160 - 40 * k])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def edgekit(monkeypatch, capfd):
    """Run the command line in this process: edgekit("build", ...) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgekit", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capfd.readouterr())

    return call
