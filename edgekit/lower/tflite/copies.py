"""Some operators of a file as a file of their own, n times side by side: for timing them as in the whole.

The copies read the same inputs and have weights of their own, so that none finds another's in the cache.
Every output ends in a SLICE of one element: what the operators write stays inside, as it does in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import QuantParams
from edgekit.lower.tflite.builder import Operator, Signature, Tensor, pack

_SIDE, _CHANNELS, _LENGTH = 8, 64, 24  # of the reference


def side_by_side(
    operators: Sequence[Operator],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    copies: int,
    *,
    seed: int | None = 0,
    whole: bool = False,
) -> bytes:
    """A file of `copies` times these operators.

    Args:
        inputs, outputs: tensors that come from outside, and those that are read outside.
        seed: of the copies' weights; None keeps the ones that are there.
        whole: leave the outputs whole, for comparing answers.
    """
    shared = {tensor: replace(tensor, name=f"in{i}") for i, tensor in enumerate(inputs)}
    rng = None if seed is None else np.random.default_rng(seed)
    written: list[Operator] = []
    ends: list[tuple[str, Tensor]] = []
    bounds: dict[int, list[Tensor]] = {}
    for copy in range(copies):
        own: dict[Tensor, Tensor] = dict(shared)
        for op in operators:
            for tensor in (*op.inputs, *op.outputs):
                if tensor is not None and tensor not in own:
                    own[tensor] = _cloned(tensor, f"{copy}/t{len(own)}", rng)
            read = [None if tensor is None else own[tensor] for tensor in op.inputs]
            written.append(replace(op, inputs=read, outputs=[own[tensor] for tensor in op.outputs]))
        for i, tensor in enumerate(outputs):
            end = own[tensor] if whole else _first_element(own[tensor], written, bounds)
            ends.append((f"out{copy}.{i}", end))
    signature = Signature([(tensor.name, tensor) for tensor in shared.values()], ends)
    return pack(written, signature, name="unit", description="edgekit: operators side by side")


def reference() -> bytes:
    """A file that takes some ten microseconds of arithmetic and little memory: a row of small convolutions.

    Times of other files are held against it, so it must never change.
    """
    rng, quant = np.random.default_rng(0), QuantParams((0.05,), (0,))
    wide = QuantParams((0.0005,), (0,), "int32")
    first = x = Tensor("in", (1, _SIDE, _SIDE, _CHANNELS), "int8", None, quant)
    written = []
    for i in range(_LENGTH):
        shape = (_CHANNELS, 1, 1, _CHANNELS)
        weight = Tensor(
            f"w{i}", shape, "int8", rng.integers(-127, 128, shape, np.int8), QuantParams((0.01,), (0,))
        )
        bias = Tensor(f"b{i}", (_CHANNELS,), "int32", rng.integers(-99, 99, _CHANNELS, np.int32), wide)
        options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideH=1, strideW=1)
        y = replace(first, name=f"y{i}")
        written.append(Operator("CONV_2D", [x, weight, bias], [y], options))
        x = y
    signature = Signature([("in", first)], [("out", x)])
    return pack(written, signature, name="reference", description="edgekit: reference")


def _cloned(tensor: Tensor, name: str, rng: np.random.Generator | None) -> Tensor:
    if tensor.data is None or rng is None or not _is_weight(tensor):
        return replace(tensor, name=name)
    return replace(tensor, name=name, data=_random(rng, tensor))


def _is_weight(tensor: Tensor) -> bool:
    """Neither what says how to compute (axes, bounds) nor the number a scalar function is applied with."""
    return (tensor.quant is not None or tensor.dtype.startswith("float")) and bool(tensor.shape)


def _first_element(tensor: Tensor, written: list[Operator], bounds: dict[int, list[Tensor]]) -> Tensor:
    """bounds: begin and size by rank, shared by all."""
    rank = len(tensor.shape)
    if not rank:
        return tensor
    if rank not in bounds:
        numbers = {"begin": np.zeros(rank, np.int32), "size": np.ones(rank, np.int32)}
        bounds[rank] = [Tensor(name, (rank,), "int32", data) for name, data in numbers.items()]
    result = replace(tensor, name=f"{tensor.name}/one", shape=(1,) * rank)
    written.append(Operator("SLICE", [tensor, *bounds[rank]], [result], schema.SliceOptionsT()))
    return result


def _random(rng: np.random.Generator, tensor: Tensor) -> np.ndarray:
    """Numbers of the tensor's type, none of which a kernel could skip."""
    if tensor.dtype.startswith("float"):
        spread = max(tensor.shape[1:], default=1) if len(tensor.shape) > 1 else 1
        numbers = (rng.random(tensor.shape, np.float32) - np.float32(0.5)) / np.float32(spread**0.5)
        return numbers.astype(tensor.dtype)
    if tensor.dtype == "int8":
        drawn = np.frombuffer(rng.bytes(int(np.prod(tensor.shape))), np.int8)
        return np.maximum(drawn, np.int8(-127)).reshape(tensor.shape)
    return rng.integers(-1000, 1001, tensor.shape, dtype=tensor.dtype)
