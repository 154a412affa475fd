"""Narrower forms of units that multiply by weights: what a table needs to tell what a thinner model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit.cost.units import Unit, units_of
from edgekit.graph.ir import QuantParams
from edgekit.lower.tflite.builder import Signature, Tensor

NARROWEST = 0.25
_FEWEST = 8  # channels from which a side is made narrower
_AXES = {"CONV_2D": (3, 0), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (1, 0)}  # of weights: in, out


def narrower(units: Sequence[Unit], count: int, seed: int = 0) -> list[Unit]:
    """`count` thinner forms of every unit that can be one, their widths drawn between a quarter and all.

    Grouped convolutions stay as they are, and so do sides of fewer than eight channels (pictures).
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Unit] = {}
    for unit in {unit.key: unit for unit in units}.values():
        for _ in range(count):
            shares = rng.uniform(NARROWEST, 1.0, 2)
            if (thin := scaled(unit, *shares)) is not None:
                found[thin.key] = thin
    return list(found.values())


def scaled(unit: Unit, share_in: float, share_out: float) -> Unit | None:
    """A unit with a share of its input and output channels; None for one without weights of its own."""
    main = unit.operators[-1]
    if main.name not in _AXES or len(unit.inputs) != 1 or "groups" in unit.sizes:
        return None
    x, weight = main.inputs[0], main.inputs[1]
    if x is None or weight is None or weight.data is None or main.inputs[-1] is None:
        return None
    axis_in, axis_out = _AXES[main.name]
    depthwise = axis_in == axis_out
    if depthwise and x.shape[-1] != main.outputs[0].shape[-1]:
        return None
    out = _share(weight.shape[axis_out], share_out)
    inner = out if depthwise else _share(weight.shape[axis_in], share_in)
    new: dict[Tensor, Tensor] = {}
    for op in unit.operators:
        for tensor in (op.inputs[0], *op.outputs):
            if tensor is not None:
                channels = out if tensor in main.outputs else inner
                new[tensor] = replace(tensor, shape=(*tensor.shape[:-1], channels))
    shape = list(weight.shape)
    shape[axis_in] = inner
    shape[axis_out] = out
    new[weight] = _constant(weight, tuple(shape))
    for bias in main.inputs[2:]:
        if bias is not None:
            new[bias] = _constant(bias, (out,))
    operators = [
        replace(
            op,
            inputs=[new.get(t, t) if t is not None else None for t in op.inputs],
            outputs=[new[t] for t in op.outputs],
        )
        for op in unit.operators
    ]
    signature = Signature([("in", new[unit.inputs[0]])], [("out", operators[-1].outputs[0])])
    (thin,) = units_of(operators, signature)
    return thin


def _share(channels: int, share: float) -> int:
    return channels if channels < _FEWEST else max(1, round(channels * share))


def _constant(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Of another shape; what is in it is drawn when a file is written."""
    assert tensor.data is not None
    quant = tensor.quant
    if quant is not None and quant.axis is not None:
        size = shape[quant.axis]
        quant = QuantParams((quant.scale[0],) * size, (0,) * size, quant.dtype, quant.axis)
    return replace(tensor, shape=shape, data=np.ones(shape, tensor.data.dtype), quant=quant)
