"""A prepared graph in, the bytes of an .onnx file out, with what a verifier needs to find its way back.

Opset 17 is read by ONNX Runtime, OpenVINO and TensorRT from 8.6 on; it has HardSwish and LayerNormalization,
while gelu, mish and group_norm are written out. The batch is the graph's 1 unless `dynamic_batch` leaves it
open.
"""

from __future__ import annotations

from edgekit.errors import UnsupportedError, UsageError
from edgekit.graph.ir import Graph, Value
from edgekit.lower import table
from edgekit.lower.lowered import Lowered, LoweredOp
from edgekit.lower.onnx import (  # noqa: F401 (each fills the lowering table)
    activation,
    comparison,
    constants,
    convolution,
    elementwise,
    movement,
    normalization,
    pooling,
    resize,
)
from edgekit.lower.onnx.context import CHECKS, LOWERINGS, Context
from edgekit.lower.onnx.file import Tensor, pack
from edgekit.lower.ports import ports_of
from edgekit.targets import Target

_LIMIT_BYTES = 2**31 - 2**20  # a protobuf message ends at 2 GiB; the structure takes the rest
_BATCH = "batch"


def supported(target: Target) -> frozenset[str]:
    """The graph ops this format can express; what a single node asks for may still be refused."""
    assert target.format == "onnx"
    return frozenset(LOWERINGS)


def unsupported(graph: Graph, target: Target) -> list[str]:
    """One line for every node that cannot be lowered, with its module and what would be accepted."""
    return table.unsupported(graph, target, LOWERINGS, CHECKS)


def lower(
    graph: Graph,
    target: Target,
    *,
    io_dtype: str | None = None,
    dynamic_batch: bool = False,
    outputs_also: tuple[str, ...] = (),
) -> Lowered:
    """The .onnx file of a graph that went through `prepare`.

    Args:
        io_dtype: type of the file's inputs; None takes the target's default. "uint8" takes images already on
            the input's grid. Outputs are float32.
        dynamic_batch: any number of images in one run; only for a graph that is batchable.
        outputs_also: names of values that become further outputs, for probing.
    Raises: UnsupportedError naming every node at once or a file over 2 GiB, UsageError for an I/O type or a
        batch the target or graph does not take.
    """
    table.refuse(unsupported(graph, target), target)
    io_dtype = table.checked_io(target, io_dtype)
    if dynamic_batch and not graph.batchable:
        raise UsageError(
            f"{target.name}: {graph.name} has a batch of 1 built into its shapes: dynamic_batch=False"
        )
    _refuse_too_large(graph, target)
    ctx = Context(graph, target, dynamic=dynamic_batch)
    inputs = [_input(ctx, value, io_dtype) for value in graph.inputs]
    ctx.run()
    ctx.node, ctx.node_index = None, -1
    producers = graph.producers()
    given: dict[Value, Tensor] = {}
    for value in dict.fromkeys(graph.outputs):
        ctx.node = producers.get(value)
        given[value] = _output(ctx, value)
    outputs = list(given.values())
    tensors = {v.name: ctx.renamed.get(t, t) for v, t in {**ctx.floats, **ctx.integers}.items()}
    probes = [_probe(ctx, graph.value(name), tensors) for name in outputs_also]
    taken = {t.name for t in outputs}
    data = pack(
        ctx, inputs, [*outputs, *(t for t in probes if t.name not in taken)], f"edgekit {target.name}"
    )
    names = data.names
    return Lowered(
        files={"model.onnx": data.content},
        tensors=tensors,
        operators=tuple(
            LoweredOp(
                op.op_type,
                op.graph_op,
                op.source,
                op.node_index,
                tuple(ctx.renamed.get(t, t) for t in op.outputs),
                name,
            )
            for name, op in zip(names, ctx.operators, strict=True)
        ),
        inputs=tuple(tensor.name for tensor in inputs),
        outputs=tuple(tensor.name for tensor in outputs),
        batchable=dynamic_batch,
        ports=ports_of(graph, lambda v: v.name, lambda v: given[v].name, channels_last=False),
    )


def _refuse_too_large(graph: Graph, target: Target) -> None:
    size = sum(
        v.data.numel() * (1 if v.quant else v.data.element_size())
        for v in graph.constants()
        if v.data is not None
    )
    if size > _LIMIT_BYTES:
        raise UnsupportedError(
            f"{target.name}: {graph.name} holds {size / 2**30:.1f} GiB of constants: a file ends at 2 GiB"
        )


def _sizes(ctx: Context, value: Value) -> tuple[int | str | None, ...]:
    """Sizes as the file states them: an open batch is a name, a multiple of it unknown."""
    if not ctx.dynamic or value not in ctx.batched or not value.shape:
        return value.shape
    return (_BATCH if value.shape[0] == 1 else None, *value.shape[1:])


def _input(ctx: Context, value: Value, io_dtype: str) -> Tensor:
    """The file's input for a graph input; integers are taken as they are, floats rounded to the grid."""
    if io_dtype == "uint8":
        quant = value.quant or constants.input_grid(value)
        form = constants.stored_as(quant, ctx.target)
        if value.quant is None:
            ctx.floats[value] = ctx.dequantized(value.name, quant)
        else:
            ctx.integers[value] = value.name
        return Tensor(value.name, _sizes(ctx, value), form.dtype)
    if value.quant is None:
        ctx.floats[value] = value.name
    else:
        ctx.integers[value] = ctx.quantized(value.name, value.quant, f"{value.name}/quantized")
    return Tensor(value.name, _sizes(ctx, value), value.dtype)


def _output(ctx: Context, value: Value) -> Tensor:
    """The file's output for a graph output, float32, under the value's name."""
    tensor = ctx.read(value)
    copied = value in ctx.graph.inputs or value.is_constant or tensor in ctx.renamed
    if copied and ctx.renamed.get(tensor) != value.name:
        tensor = ctx.emit("Identity", tensor)
    if value in ctx.graph.inputs or value.is_constant:
        ctx.renamed[tensor] = ctx.fresh_name(f"{value.name}/output")
    else:
        ctx.renamed[tensor] = value.name
    return Tensor(ctx.renamed[tensor], _sizes(ctx, value), value.dtype)


def _probe(ctx: Context, value: Value, tensors: dict[str, str]) -> Tensor:
    dtype = constants.stored_as(value.quant, ctx.target).dtype if value.quant else value.dtype
    return Tensor(tensors[value.name], _sizes(ctx, value), dtype)
