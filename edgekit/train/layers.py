"""What of a module is trained: its layers in order, its head, its normalisations, its batch statistics.

In: an nn.Module, or a captured graph as one. Out: parameters by name and depth, and the modules that keep
running statistics. Layers are in the order in which a module defines them, which is that of its forward in
every common network, and in the order of a graph's nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import UsageError
from edgekit.graph.module import GraphModule
from edgekit.graph.ops import OPS, WEIGHT_AXIS

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm
_NORMS = (_BATCH_NORM, _INSTANCE_NORM, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_FEW_CHANNELS = 3  # a stem's make no matrix worth orthogonalising


@dataclass(frozen=True)
class Layer:
    """What owns some parameters: their names, whether it normalises, its biases.

    matrix: the weight that maps all channels to all others: of a convolution without groups and bias, or of
    a linear layer. A convolution with a bias is squeeze-and-excitation.
    """

    parameters: tuple[str, ...]
    is_norm: bool
    biases: tuple[str, ...]
    matrix: str | None = None
    linear: bool = False


def layers(module: nn.Module) -> list[Layer]:
    """The layers with parameters of their own, in order; one that is used twice counts once."""
    found = _of_graph(module) if isinstance(module, GraphModule) else _of_modules(module)
    seen: set[str] = set()
    kept = []
    for layer in found:
        own = tuple(name for name in layer.parameters if name not in seen)
        seen.update(own)
        if own:
            kept.append(layer)
    return kept


def _of_modules(module: nn.Module) -> Iterator[Layer]:
    for name, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False))
        path = f"{name}." if name else ""
        full = isinstance(part, nn.Conv2d) and part.groups == 1 and part.in_channels > _FEW_CHANNELS
        linear = isinstance(part, nn.Linear)
        matrix = f"{path}weight" if "weight" in own and (linear or (full and "bias" not in own)) else None
        biases = tuple(path + key for key in own if key == "bias")
        yield Layer(tuple(path + key for key in own), isinstance(part, _NORMS), biases, matrix, linear)


def _of_graph(module: GraphModule) -> Iterator[Layer]:
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    for node, paths in module.readers():
        weighs = node.op in WEIGHT_AXIS
        weight, bias = (*paths[1:3], None, None)[:2] if weighs else (None, None)
        linear = node.op == "linear"
        full = node.op == "conv2d" and node.attrs["groups"] == 1 and len(node.operands) < 3
        matrix = weight if weight and (linear or (full and shapes[weight][1] > _FEW_CHANNELS)) else None
        names = tuple(dict.fromkeys(path for path in paths if path))
        norm = OPS[node.op].channels == "normalize" or node.op == "batch_norm"
        yield Layer(names, norm, (bias,) if bias else (), matrix, linear)


def head(module: nn.Module) -> set[str]:
    """Names of the parameters of the last layer with a matrix: its classifier, by any name.

    Raises: UsageError when no layer has one.
    """
    ranks = {name: parameter.ndim for name, parameter in module.named_parameters()}
    for layer in reversed(layers(module)):
        if any(ranks[name] > 1 for name in layer.parameters):
            return set(layer.parameters)
    raise UsageError("train: 'head': the module has no layer with weights: trainable 'all'")


def norms(module: nn.Module) -> set[str]:
    """Names of the parameters of normalisations, and of every other bias."""
    return {
        name for layer in layers(module) for name in (layer.parameters if layer.is_norm else layer.biases)
    }


def depths(module: nn.Module) -> dict[str, float]:
    """How deep each parameter lies: 0 in the first layer, 1 in the last."""
    found = layers(module)
    depth: dict[str, float] = {}
    for index, layer in enumerate(found):
        for name in layer.parameters:
            depth.setdefault(name, index / (len(found) - 1) if len(found) > 1 else 1.0)
    return depth


def matrices(module: nn.Module) -> set[str]:
    """Weights that Muon is for; the last linear layer, a classifier, has rows of lengths of their own."""
    found = [layer for layer in layers(module) if layer.matrix]
    last = next((layer for layer in reversed(found) if layer.linear), None)
    return {layer.matrix for layer in found if layer is not last and layer.matrix}


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
