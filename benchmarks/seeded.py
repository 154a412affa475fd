"""Networks and images for benchmarks that need no trained weights; imported by both environments.

Enters: a name. Leaves: files that every tool loads, so that all of them compile the same numbers whatever
versions of torch they run on: `weights.safetensors` of a module, `images.npy` float32 (N, C, H, W).

A freshly initialised network in eval mode normalises with mean 0 and variance 1, which no trained network
does: activations shrink or grow layer by layer and their ranges say nothing. Here a few train-mode batches
of smooth random images pass through the random weights and leave live batch norm statistics. Needs torch,
torchvision, numpy and safetensors; timm for the networks that are timm's.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

MODELS = (
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "shufflenet_v2_x1_0",
)
RESOLUTION = 224
VERSION = 2  # of what this file generates: part of every cached file's name
STATISTICS_BATCHES = 6
STATISTICS_BATCH = 16


def create_module(source: str, name: str, num_classes: int = 1000) -> nn.Module:
    """An untrained module of a library, in eval mode. source: "torchvision" or "timm"."""
    if source == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=num_classes).eval()
    import torchvision

    return getattr(torchvision.models, name)(weights=None, num_classes=num_classes).eval()


def load_module(source: str, name: str, num_classes: int, weights: Path) -> nn.Module:
    """`create_module` with the state dict of a .safetensors file."""
    module = create_module(source, name, num_classes)
    module.load_state_dict(load_file(weights))
    return module.eval()


def smooth_images(count: int, seed: int, resolution: int = RESOLUTION) -> np.ndarray:
    """Random images of mostly low frequencies: float32 (N, 3, H, W), std 1, within 2.5."""
    rng = np.random.default_rng(seed)
    images = torch.zeros(count, 3, resolution, resolution)
    for side, weight in ((4, 1.0), (14, 0.5), (56, 0.25)):
        lattice = torch.from_numpy(rng.standard_normal((count, 3, side, side), np.float32))
        images += weight * F.interpolate(lattice, resolution, mode="bicubic", align_corners=False)
    # Equal contrast: random networks amplify it so much that a pooled figure would rest on a few images.
    images /= images.std((1, 2, 3), keepdim=True)
    return images.clamp_(-2.5, 2.5).numpy()


def live_statistics(module: nn.Module, seed: int, resolution: int = RESOLUTION) -> None:
    """Give every batch norm the mean and variance of what really reaches it, averaged over a few batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    module.train()
    with torch.no_grad():
        for batch in range(STATISTICS_BATCHES):
            module(torch.from_numpy(smooth_images(STATISTICS_BATCH, seed + 1 + batch, resolution)))
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def seeded_weights(name: str, folder: Path, seed: int = 0) -> Path:
    """The state dict of a torchvision network with seeded random weights, written once."""
    path = folder / f"{name}-seed{seed}-v{VERSION}.safetensors"
    if not path.exists():
        torch.manual_seed(seed)
        module = create_module("torchvision", name)
        live_statistics(module, seed=1000 * (seed + 1))
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda partial: save_state(module, partial))
    return path


def seeded_images(count: int, seed: int, folder: Path) -> Path:
    """`smooth_images`, written once as .npy."""
    path = folder / f"smooth-{count}-seed{seed}-v{VERSION}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_array(path, smooth_images(count, seed))
    return path


def save_state(module: nn.Module, path: Path) -> None:
    save_file({k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}, path)


def save_array(path: Path, array: np.ndarray) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.save(stream, array)

    write_atomic(path, write)


def write_atomic(path: Path, write) -> None:
    """Let `write` fill a file beside `path`, then move it there: a killed run leaves nothing half-written."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def content_key(*parts: object) -> str:
    """A short hash of files (given as paths, by their bytes) and plain values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()[:16]
