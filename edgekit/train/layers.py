"""What of a module is trained: its layers in order, its head, its normalisations, its batch statistics.

In: an nn.Module. Out: parameters by name and depth, and the modules that keep running statistics. Layers are
taken in the order in which the module defines them, which is that of its forward in every common network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from edgekit.errors import UsageError

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_NORMS = (_BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


def layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own, in order; one that is used twice counts once."""
    return [
        (name, part)
        for name, part in module.named_modules()
        if any(parameter is not None for parameter in part.parameters(recurse=False))
    ]


def head(module: nn.Module) -> set[str]:
    """Names of the parameters of the last layer with a matrix: its classifier, by any name.

    Raises: UsageError when no layer has one.
    """
    for name, part in reversed(layers(module)):
        own = dict(part.named_parameters(recurse=False))
        if any(parameter.ndim > 1 for parameter in own.values()):
            return {f"{name}.{key}" if name else key for key in own}
    raise UsageError("train: 'head': the module has no layer with weights: trainable 'all'")


def norms(module: nn.Module) -> set[str]:
    """Names of the parameters of normalisations, and of every other bias."""
    found = set()
    for name, part in layers(module):
        for key, _ in part.named_parameters(recurse=False):
            if isinstance(part, _NORMS) or key == "bias":
                found.add(f"{name}.{key}" if name else key)
    return found


def depths(module: nn.Module) -> dict[str, float]:
    """How deep each parameter lies: 0 in the first layer, 1 in the last."""
    found = layers(module)
    last = max(1, len(found) - 1)
    return {
        f"{name}.{key}" if name else key: (index / last if len(found) > 1 else 1.0)
        for index, (name, part) in enumerate(found)
        for key, _ in part.named_parameters(recurse=False)
    }


def batch_norms(module: nn.Module) -> dict[str, Any]:
    """The modules that normalise by the batch and keep running statistics, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, _BATCH_NORM) and part.running_mean is not None
    }


def trained(module: nn.Module, trainable: str, freeze_batch_norm: str) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; see `Settings`.

    Raises: UsageError when none is left.
    """
    names = {name for name, parameter in module.named_parameters() if parameter.is_floating_point()}
    if trainable == "head":
        names &= head(module)
    elif trainable == "norms":
        names &= norms(module)
    if freeze_batch_norm == "all":
        for name, part in batch_norms(module).items():
            names -= {f"{name}.{key}" if name else key for key, _ in part.named_parameters(recurse=False)}
    found = {name: parameter for name, parameter in module.named_parameters() if name in names}
    if not found:
        raise UsageError(f"train: no parameter is left to train with '{trainable}': trainable 'all'")
    return found


@contextmanager
def only(module: nn.Module, learning: dict[str, nn.Parameter]) -> Iterator[None]:
    """Inside the block exactly `learning` takes gradients; the flags are put back."""
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    chosen = set(learning.values())
    for parameter in flags:
        parameter.requires_grad_(parameter in chosen and parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def training_mode(module: nn.Module, trainable: str, freeze_batch_norm: str) -> None:
    """`module.train()`, with batch norm that is frozen in eval mode: all but the head's own."""
    module.train()
    if freeze_batch_norm != "no" or trainable == "head":
        for part in batch_norms(module).values():
            part.eval()


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterator[tuple[torch.Tensor, ...]]) -> None:
    """Replace running statistics by their plain average over `batches`; leaves the module in eval mode."""
    found = batch_norms(module)
    kept = {name: part.momentum for name, part in found.items()}
    for part in found.values():
        part.reset_running_stats()
        part.momentum = None  # cumulative average
    module.train()
    try:
        for inputs in batches:
            module(*inputs)
    finally:
        module.eval()
        for name, part in found.items():
            part.momentum = kept[name]
