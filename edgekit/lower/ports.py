"""Where a graph's inputs and outputs lie in the file they were lowered to: what only the lowering knows.

A format may store pictures channels last, give tensors names of its own and write one output where the graph
returns the same value twice. A Port says it for one input or output, so that nothing downstream has to guess
from shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import per_image

NHWC = (0, 2, 3, 1)


@dataclass(frozen=True)
class Port:
    """One input or output of a file.

    value: the graph value's name. name: what the file calls it. shape, dtype: the graph's, with a batch of 1.
    layout: dimension i of the file's tensor holds dimension layout[i] of the graph's.
    """

    value: str
    name: str
    shape: tuple[int, ...]
    layout: tuple[int, ...]
    dtype: str = "float32"

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of what belongs to one image: without the batch of 1 where there is one."""
        return per_image(self.shape)


@dataclass(frozen=True)
class Ports:
    """One Port a graph input and one a graph output, in the graph's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Ports:
        def port(row: Mapping[str, Any]) -> Port:
            return Port(**{**row, "shape": tuple(row["shape"]), "layout": tuple(row["layout"])})

        return cls(tuple(map(port, content["inputs"])), tuple(map(port, content["outputs"])))


def ports_of(
    graph: Graph, inputs: Callable[[Value], str], outputs: Callable[[Value], str], *, channels_last: bool
) -> Ports:
    """The ports of a format that stores every tensor as torch does, or every 4-D one channels last.

    Args:
        inputs, outputs: the name in the file of a graph's input or output.
    """

    def port(value: Value, name: str) -> Port:
        rank = len(value.shape)
        layout = NHWC if channels_last and rank == 4 else tuple(range(rank))
        return Port(value.name, name, tuple(value.shape), layout, value.dtype)

    return Ports(
        tuple(port(v, inputs(v)) for v in graph.inputs), tuple(port(v, outputs(v)) for v in graph.outputs)
    )
