"""Two ways in which real networks and real data are worse than benchmark ones.

`rescale_channels` multiplies channels inside a network by exp(N(0, 1)) and divides where they are read: the
same function, but per-tensor int8 now has to hold channels a hundred times apart. Linear boundaries (the
projection of a block, read by the next block's first convolution) can be scaled in every network; through
ReLU it goes too, but not through ReLU6 or h-swish, which are not homogeneous.

`poison` spoils one calibration image of many, as a broken file or a forgotten division does. Where it stands
among the images matters to a tool that keeps moving averages, as ai-edge-quantizer does: there, 86 images
later, little of it is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

POISONED_INDEX = 41


@dataclass
class Block:
    """One inverted residual: expand (may be missing), depthwise, squeeze (may be missing), project."""

    expand: nn.Conv2d | None
    expand_norm: nn.BatchNorm2d | None
    depthwise: nn.Conv2d
    depthwise_norm: nn.BatchNorm2d
    squeeze: nn.Conv2d | None
    project: nn.Conv2d
    project_norm: nn.BatchNorm2d
    residual: bool
    relu: bool  # plain ReLU, which lets a positive factor through

    @property
    def first(self) -> nn.Conv2d:
        return self.expand or self.depthwise


def rescale_channels(module: nn.Module, seed: int = 0) -> int:
    """Rescale a MobileNetV2, MobileNetV3 or EfficientNet-Lite in place; returns how many channels were.

    Raises TypeError for a network whose blocks are not known.
    """
    rng = np.random.default_rng(seed)
    blocks, head = _torchvision(module) if hasattr(module, "features") else _timm(module)
    count = 0
    with torch.no_grad():
        for norms, readers in (*_streams(blocks, head), *_inner(blocks)):
            width = norms[0].weight.numel()
            factors = torch.from_numpy(np.exp(rng.standard_normal(width)).astype(np.float32))
            for norm in norms:
                norm.weight.mul_(factors)
                norm.bias.mul_(factors)
            for conv in readers:
                shape = (-1, 1, 1, 1) if conv.groups == width else (1, -1, 1, 1)
                conv.weight.div_(factors.reshape(shape))
            count += width
    return count


def poison(images: np.ndarray, kind: str, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """A copy of preprocessed calibration images (N, C, H, W) with one of them spoiled.

    kind: "raw pixels" (0..255 went in where 0..1 was meant) or "noise" (every pixel black or white at
    random).
    """
    m, s = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
    spoiled = images.copy()
    if kind == "raw pixels":
        pixels = (images[POISONED_INDEX] * s + m) * np.float32(255)
    elif kind == "noise":
        pixels = np.random.default_rng(0).integers(0, 2, images.shape[1:]).astype(np.float32)
    else:
        raise ValueError(f"{kind!r} is no way to poison an image: 'raw pixels' or 'noise'")
    spoiled[POISONED_INDEX] = (pixels - m) / s
    return spoiled


def _streams(blocks: list[Block], head: nn.Conv2d) -> Iterator[tuple[list[nn.BatchNorm2d], list[nn.Conv2d]]]:
    """Residual streams: the projections that write one, and the convolutions that read it.

    The stem's stream is left alone: an activation wrote it.
    """
    norms: list[nn.BatchNorm2d] = []
    readers: list[nn.Conv2d] = []
    for block in blocks:
        readers.append(block.first)
        if not block.residual:
            if norms:
                yield norms, readers
            norms, readers = [block.project_norm], []
        elif norms:
            norms.append(block.project_norm)
    if norms:
        yield norms, [*readers, head]


def _inner(blocks: list[Block]) -> Iterator[tuple[list[nn.BatchNorm2d], list[nn.Conv2d]]]:
    """Inside blocks with plain ReLU: expand -> depthwise -> (squeeze and) project."""
    for block in blocks:
        if not block.relu:
            continue
        if block.expand is not None and block.expand_norm is not None:
            yield [block.expand_norm], [block.depthwise]
        yield [block.depthwise_norm], [c for c in (block.squeeze, block.project) if c is not None]


def _torchvision(module: nn.Module) -> tuple[list[Block], nn.Conv2d]:
    blocks = []
    for stage in list(module.features)[1:-1]:  # type: ignore[arg-type]
        inside = getattr(stage, "block", None) or getattr(stage, "conv", None)
        if inside is None:
            raise TypeError(f"{type(stage).__name__}: not an inverted residual block")
        convs = [m for m in inside.modules() if isinstance(m, nn.Conv2d)]
        squeezes = [m.fc1 for m in inside.modules() if hasattr(m, "fc1")]
        excites = [m.fc2 for m in inside.modules() if hasattr(m, "fc2")]
        plain = [c for c in convs if not any(c is other for other in (*squeezes, *excites))]
        norms = [m for m in inside.modules() if isinstance(m, nn.BatchNorm2d)]
        relu = any(type(m) is nn.ReLU for m in _outside_squeeze(inside))
        blocks.append(_block(plain, norms, squeezes, bool(stage.use_res_connect), relu))
    return blocks, module.features[-1][0]  # type: ignore[index,return-value]


def _outside_squeeze(inside: nn.Module) -> Iterator[nn.Module]:
    for child in inside.children():
        if not hasattr(child, "fc1"):
            yield from child.modules()


def _timm(module: nn.Module) -> tuple[list[Block], nn.Conv2d]:
    blocks = []
    for stage in module.blocks:  # type: ignore[union-attr]
        for block in stage:  # type: ignore[union-attr]
            convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
            norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
            relu = any(type(m) is nn.ReLU for m in block.modules())
            if len(convs) != len(norms):
                raise TypeError(f"{type(block).__name__}: a block without squeeze-and-excite is needed")
            blocks.append(_block(convs, norms, [], bool(block.has_skip), relu))
    return blocks, module.conv_head  # type: ignore[return-value]


def _block(
    convs: list[nn.Conv2d], norms: list[nn.BatchNorm2d], squeezes: list[nn.Conv2d], residual: bool, relu: bool
) -> Block:
    if len(convs) not in (2, 3) or len(norms) != len(convs):
        raise TypeError(
            f"a block of {len(convs)} convolutions and {len(norms)} norms: 2 or 3 of each are needed"
        )
    expand, norm = (convs[0], norms[0]) if len(convs) == 3 else (None, None)
    squeeze = squeezes[0] if squeezes else None
    return Block(expand, norm, convs[-2], norms[-2], squeeze, convs[-1], norms[-1], residual, relu)
