"""A prepared graph in, the bytes of a .tflite file out, with what a verifier needs to find its way back."""

from __future__ import annotations

import numpy as np

import edgekit
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.lower import table
from edgekit.lower.lowered import Lowered, LoweredOp
from edgekit.lower.ports import Ports, ports_of
from edgekit.lower.tflite import (  # noqa: F401 (each fills the lowering table)
    activation,
    attention,
    comparison,
    convolution,
    elementwise,
    layout,
    movement,
    pooling,
    resize,
)
from edgekit.lower.tflite.builder import Operator, Signature, Tensor, pack
from edgekit.lower.tflite.context import CHECKS, LOWERINGS, Context
from edgekit.lower.tflite.layout import NHWC
from edgekit.targets import Target


def supported(target: Target) -> frozenset[str]:
    """The graph ops this format can express; what a single node asks for may still be refused."""
    assert target.format == "tflite"
    return frozenset(LOWERINGS)


def unsupported(graph: Graph, target: Target) -> list[str]:
    """One line for every node that cannot be lowered, with its module and what would be accepted."""
    return table.unsupported(graph, target, LOWERINGS, CHECKS)


def lower(
    graph: Graph, target: Target, *, io_dtype: str | None = None, outputs_also: tuple[str, ...] = ()
) -> Lowered:
    """The .tflite file of a graph that went through `prepare`.

    Args:
        io_dtype: type of the file's inputs and outputs; None takes the target's default. "float32" and
        "uint8"
            on an integer target convert at the edges.
        outputs_also: names of values that become further outputs, for probing; the rest of the file is the
        same.
    Raises: UnsupportedError naming every node at once, UsageError for an I/O type the target does not take.
    """
    ctx, inputs, outputs = _written(graph, target, io_dtype, outputs_also)
    data = pack(
        ctx.operators,
        Signature(inputs, _unique(outputs)),
        name=graph.name,
        description=f"edgekit {edgekit.__version__}, {target.name}",
        metadata={"edgekit_version": edgekit.__version__.encode()},
    )
    written = {t for op in ctx.operators for t in op.outputs} | {t for _, t in inputs}
    held = {v: (t, perm) for v, (t, perm) in ctx.stored.items() if t in written and _exact(v, t)}
    return Lowered(
        files={"model.tflite": data},
        tensors={v.name: t.name for v, (t, _) in held.items()},
        layouts={v.name: perm for v, (_, perm) in held.items()},
        certificate=tuple(ctx.certificate),
        operators=tuple(
            LoweredOp(op.name, op.graph_op, op.source, op.node_index, tuple(t.name for t in op.outputs))
            for op in ctx.operators
        ),
        inputs=tuple(key for key, _ in inputs),
        outputs=tuple(key for key, _ in outputs),
        ports=_ports(graph, inputs, outputs),
    )


def operators(graph: Graph, target: Target, io_dtype: str | None = None) -> tuple[list[Operator], Signature]:
    """What the file of a prepared graph runs, with its inputs and outputs: `lower` before it is packed.

    Raises: as `lower`.
    """
    ctx, inputs, outputs = _written(graph, target, io_dtype, ())
    return ctx.operators, Signature(inputs, _unique(outputs))


def _written(
    graph: Graph, target: Target, io_dtype: str | None, outputs_also: tuple[str, ...]
) -> tuple[Context, list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    table.refuse(unsupported(graph, target), target)
    io_dtype = table.checked_io(target, io_dtype)
    ctx = Context(graph, target, exposed=frozenset(graph.value(name) for name in outputs_also))
    inputs = [(_key(value), _input(ctx, value, io_dtype)) for value in graph.inputs]
    ctx.run()
    ctx.node, ctx.node_index = None, -1
    outputs: list[tuple[str, Tensor]] = []
    for value in graph.outputs:
        ctx.node = ctx.producers.get(value)  # what a conversion at the edge is put down to
        outputs.append((_key(value), _output(ctx, value, io_dtype, [t for _, t in (*inputs, *outputs)])))
    for value in ctx.exposed_in_order():
        if value not in graph.outputs and value not in graph.inputs:
            outputs.append((_key(value), ctx.stored[value][0]))
    return ctx, inputs, outputs


def _ports(graph: Graph, inputs: list[tuple[str, Tensor]], outputs: list[tuple[str, Tensor]]) -> Ports:
    taken, given = dict(inputs), dict(outputs)
    return ports_of(graph, lambda v: taken[_key(v)].name, lambda v: given[_key(v)].name, channels_last=True)


def _exact(value: Value, tensor: Tensor) -> bool:
    return tensor.quant == value.quant


def _key(value: Value) -> str:
    return value.name


def _unique(outputs: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Signature outputs without a second mention of the same key."""
    return list(dict(outputs).items())


def _native(value: Value) -> str:
    return value.quant.dtype if value.quant else "float32"


def _input(ctx: Context, value: Value, io_dtype: str) -> Tensor:
    """The file's input for a graph input, images as (N, H, W, C), and the conversion behind it."""
    perm = NHWC if len(value.shape) == 4 else layout.identity(len(value.shape))
    shape = layout.apply(perm, value.shape)
    inner = Tensor(value.name, shape, _native(value), None, value.quant)
    ctx.stored[value] = (inner, perm)
    if _stays(value, io_dtype):
        return inner
    outer = ctx.temporary(f"{value.name}/{io_dtype}", shape, io_dtype, _as_unsigned(value, io_dtype))
    floating = outer if io_dtype == "float32" else ctx.dequantized(outer)
    ctx.emit("QUANTIZE", [floating], [inner])
    return outer


def _output(ctx: Context, value: Value, io_dtype: str, taken: list[Tensor]) -> Tensor:
    """The file's output for a graph output: images as (N, H, W, C), everything else as it is in torch."""
    perm = NHWC if len(value.shape) == 4 else layout.identity(len(value.shape))
    tensor = ctx.read(value, perm)
    if not _stays(value, io_dtype):
        floating = ctx.dequantized(tensor)
        if io_dtype == "float32":
            return floating
        quant = _as_unsigned(value, io_dtype)
        assert quant is not None
        return ctx.quantized(floating, quant)
    if tensor in taken or tensor.data is not None:  # an output must be a tensor of its own
        copy = ctx.like(tensor, f"{value.name}/output")
        ctx.reshape(tensor, copy)
        return copy
    return tensor


def _stays(value: Value, io_dtype: str) -> bool:
    """Whether a value leaves or enters the file as it is: integers where integers are asked for."""
    return _native(value) in (io_dtype, "float32") or (_native(value) == "int16" and io_dtype == "int8")


def _as_unsigned(value: Value, io_dtype: str) -> QuantParams | None:
    """The same numbers in uint8: the zero point moves by 128; of int16 in steps of 257."""
    if io_dtype == "float32" or value.quant is None:
        return None
    if value.quant.dtype == "int16":
        return QuantParams((float(np.float32(value.quant.scale[0] * 257.0)),), (128,), "uint8")
    return QuantParams(value.quant.scale, (value.quant.zero_point[0] + 128,), "uint8")
