"""A prepared graph in, the .xml and .bin of an OpenVINO model out, with the way back to modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.errors import UsageError
from edgekit.graph.ir import Graph, Value
from edgekit.lower import table
from edgekit.lower.lowered import Lowered
from edgekit.lower.openvino import (  # noqa: F401 (each fills the lowering table)
    activation,
    comparison,
    convolution,
    elementwise,
    movement,
    normalization,
    pooling,
    resize,
)
from edgekit.lower.openvino.context import CHECKS, LOWERINGS, Context
from edgekit.lower.openvino.file import pack
from edgekit.lower.openvino.runtime import openvino
from edgekit.lower.ports import ports_of
from edgekit.targets import Target


def supported(target: Target) -> frozenset[str]:
    """The graph ops this format can express; what a single node asks for may still be refused."""
    assert target.format == "openvino"
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
    """The files of a graph that went through `prepare`.

    Args:
        io_dtype: type of the file's inputs and outputs; OpenVINO targets take float32.
        dynamic_batch: any number of images in one run; only for a graph that is batchable.
        outputs_also: names of values that become further outputs, for probing.
    Raises: UnsupportedError naming every node at once, UsageError for an I/O type or a batch the target or
        graph does not take, or when the openvino package is missing.
    """
    ctx, model = build(
        graph, target, io_dtype=io_dtype, dynamic_batch=dynamic_batch, outputs_also=outputs_also
    )
    return lowered(ctx, model, pack(model))


def build(
    graph: Graph,
    target: Target,
    *,
    io_dtype: str | None = None,
    dynamic_batch: bool = False,
    outputs_also: tuple[str, ...] = (),
) -> tuple[Context, Any]:
    """What `lower` writes, as an ov.Model, with the record of how it came about."""
    table.refuse(unsupported(graph, target), target)
    io_dtype = table.checked_io(target, io_dtype)
    if dynamic_batch and not graph.batchable:
        raise UsageError(
            f"{target.name}: {graph.name} has a batch of 1 built into its shapes: dynamic_batch=False"
        )
    ctx = Context(graph, target, dynamic=dynamic_batch)
    parameters = [_input(ctx, value) for value in graph.inputs]
    ctx.run()
    ctx.node, ctx.node_index = None, -1
    probes = [graph.value(name) for name in outputs_also]
    results = [_output(ctx, value) for value in dict.fromkeys((*graph.outputs, *probes))]
    return ctx, openvino().Model(results, parameters, graph.name)


def lowered(ctx: Context, model: Any, files: dict[str, bytes]) -> Lowered:
    graph = ctx.graph
    return Lowered(
        files=files,
        batchable=ctx.dynamic,
        tensors=ctx.tensors,
        operators=tuple(ctx.operators),
        inputs=tuple(value.name for value in graph.inputs),
        outputs=tuple(ctx.tensors.get(value.name, value.name) for value in dict.fromkeys(graph.outputs)),
        ports=ports_of(
            graph, lambda v: v.name, lambda v: ctx.tensors.get(v.name, v.name), channels_last=False
        ),
    )


def _input(ctx: Context, value: Value) -> Any:
    """The Parameter of a graph input, called as it is, and its FakeQuantize."""
    shape = [-1, *value.shape[1:]] if ctx.dynamic else list(value.shape)
    made = ctx.ops.parameter(shape, np.dtype(value.dtype))
    ctx.name(made, value.name)
    made.output(0).get_tensor().set_names({value.name})
    ctx.held[value] = made.output(0)
    ctx.tensors[value.name] = value.name
    if value.quant is not None:
        ctx.bind(value, ctx.fake_quantized(made.output(0), value.quant))
    return made


def _output(ctx: Context, value: Value) -> Any:
    """The Result of a value. An input or constant passes through an operator of its own first."""
    if value not in ctx.held or value in ctx.graph.inputs:
        copy = ctx.emit("convert", ctx.read(value), np.dtype(value.dtype))
        copy.get_tensor().set_names({f"{value.name}/output"})
        ctx.tensors[value.name] = f"{value.name}/output"
        ctx.held[value] = copy
    made = ctx.ops.result(ctx.held[value])
    ctx.name(made, f"{ctx.tensors[value.name]}/Result")
    return made
