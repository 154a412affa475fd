"""What a row of the operator table says, and the registry that holds the rows.

PyTorch semantics in NCHW. Inputs are tensors (weights and biases too), everything else is a keyword attribute
that survives JSON: numbers, strings, tuples. `dim` and `dims` are the names of attributes that hold dimension
indices. An attribute `activation` is applied to the result.

Enters: a torch function and its facts, by the decorator `op`. Leaves: `OPS`, name -> `Op`. A row that
contradicts itself is a GraphError at import; tests/core/test_op_facts.py runs every function against its
facts, so that a forgotten one is an error and not only slower or wrong.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from edgekit.errors import GraphError

Tensor = torch.Tensor
Shape = tuple[int, ...]
Range = tuple[float, float]
# (shapes of the inputs, shape of the first result) -> multiply-adds
Macs = Callable[[Sequence[Shape], Shape], int]

EVERYTHING: Range = (-math.inf, math.inf)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "relu6": F.relu6}

CHANNELS = ("pass", "window", "join", "scale", "reduce", "move", "weigh", "product", "along", "normalize")
LAYOUTS = ("any", "image", "last", "order")
DTYPES = ("any", "numbers", "floats")
MOVEMENTS = (None, "view", "place", "pick")


@dataclass(frozen=True)
class Free:
    """The output takes its own calibrated range."""


@dataclass(frozen=True)
class Same:
    """The output takes the parameters of its inputs, and `why`."""

    why: str


@dataclass(frozen=True)
class Fixed:
    """The function bounds its output, and the kernels are tables for exactly these (scale, zero point)."""

    low: float
    high: float
    int8: tuple[float, int]
    int16: tuple[float, int] = (1 / 32768, 0)


@dataclass(frozen=True)
class Place:
    """The output is whole numbers that point somewhere; a step of theirs is a place: never quantized."""


FREE = Free()
PLACE = Place()
MOVED = Same("data only moves; a change of scale would be a second, lossy operator")


@dataclass(frozen=True)
class Op:
    """One operator: everything that the rest of the house knows about it in general.

    What one runtime or file format can do with it stands at its lowering.

    channels: how a channel index travels from inputs to output
        "pass"     every element comes from the one at its place
        "window"   the same by channel: element (n, c, ...) reads channel c of the one input
        "join"     several inputs broadcast against each other, element by element
        "scale"    "pass" with one parameter for each channel (dimension 1)
        "reduce"   the dimensions `dims` disappear or become 1, the others pass
        "move"     elements go elsewhere as `fn` says, whatever they hold: it runs on channel ids as well
        "weigh"    inputs[1] weighs the channels: every output channel reads all of its group
        "product"  a product of two results of the graph
        "along"    every element reads those along dimension `dim`, and no others
        "normalize"  an element by statistics of many, with parameters an element
    ranges: what quantization parameters the output may take: FREE, Same, Fixed or PLACE (none)
    layout: what the op asks of the order in which dimensions lie in memory
        "any"      nothing, once `dim` and `dims` are translated
        "image"    it computes on (N, C, H, W), however that is stored
        "last"     it computes along the last dimension or dimensions
        "order"    elements in the order of the shape: another storage is another result
    dtypes: "any" (booleans too), "numbers" (floats and integers) or "floats" of its first input
    movement: where every number of the output occurs in an input (or is the filling of `pad`)
        "view"     all of them in place, only dimensions are renamed
        "place"    put elsewhere, repeated, left out
        "pick"     chosen by comparing
    weight_axis: the output channel's axis of the weight, inputs[1]; inputs[2] is the bias
    parameters: constants after the first input belong to a float computation and keep their own numbers
    homogeneous: f(s * x) = s * f(x) for every s > 0, x all inputs but parameters (of relu6: below its bound)
    reads: the interval outside which the op cannot tell the values of its input apart
    turns: of a function of one number, with the attributes' defaults: where it is least; it falls before and
        rises behind. -inf: it rises everywhere, whatever the attributes. None: neither, or unknown
    macs: multiply-adds, for ops that hold a matrix product
    composite: expanded by a pass before quantization
    sums: integer kernels add, multiply or average the integers of its operands, which are of one type then;
        so do products (`macs`)
    """

    name: str
    fn: Callable[..., Any]
    doc: str
    channels: str
    ranges: Free | Same | Fixed | Place
    layout: str
    dtypes: str
    movement: str | None = None
    weight_axis: int | None = None
    parameters: bool = False
    homogeneous: bool = False
    reads: Range = EVERYTHING
    turns: float | None = None
    macs: Macs | None = None
    composite: bool = False
    sums: bool = False

    def __post_init__(self) -> None:
        for value, known in (
            (self.channels, CHANNELS),
            (self.layout, LAYOUTS),
            (self.dtypes, DTYPES),
            (self.movement, MOVEMENTS),
        ):
            if value not in known:
                raise GraphError(f"[ops] {self.name}: {value!r}: one of {', '.join(map(str, known))}")
        self._agree(self.movement is None or isinstance(self.ranges, Same), "what moves keeps its range")
        self._agree((self.weight_axis is not None) == (self.channels == "weigh"), "a weight needs its axis")
        self._agree((self.macs is not None) == (self.channels in ("weigh", "product")), "a product has MACs")
        self._agree(self.channels != "reduce" or "dims" in self.attributes, "a reduction names its dims")

    def _agree(self, holds: bool, rule: str) -> None:
        if not holds:
            raise GraphError(f"[ops] the row of {self.name!r} contradicts itself: {rule}")

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the keyword attributes."""
        found = inspect.signature(self.fn).parameters.values()
        return tuple(p.name for p in found if p.kind is p.KEYWORD_ONLY)

    @property
    def variadic(self) -> bool:
        """Whether it takes any number of inputs."""
        found = inspect.signature(self.fn).parameters.values()
        return any(p.kind is p.VAR_POSITIONAL for p in found)

    @property
    def fuses_activation(self) -> bool:
        return "activation" in self.attributes


OPS: dict[str, Op] = {}


def op(
    *,
    channels: str,
    ranges: Free | Same | Fixed | Place,
    layout: str,
    dtypes: str,
    **facts: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a torch function as the op it is named after, with the facts that `Op` lists."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        name = fn.__name__.rstrip("_")
        if name in OPS:
            raise GraphError(f"[ops] {name!r} is registered twice")
        OPS[name] = Op(name, fn, (fn.__doc__ or "").strip(), channels, ranges, layout, dtypes, **facts)
        return fn

    return register


def activate(x: Tensor, activation: str | None) -> Tensor:
    """The result of an op behind its fused activation."""
    return ACTIVATIONS[activation](x) if activation else x
