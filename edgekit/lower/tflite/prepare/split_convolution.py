"""One convolution as several over the same input, each with some of the output channels.

A convolution whose output is only ever read in pieces can write those pieces itself: no SLICE. Kernels work
on tiles of 16 output channels, so a cut costs nothing as long as the pieces fill no more tiles than the
whole did.
"""

from __future__ import annotations

from edgekit.graph.ir import Node, QuantParams, Value

TILE = 16


def tiles(channels: int) -> int:
    return -(-channels // TILE)


def affordable_cuts(lengths: list[int]) -> list[int]:
    """Lengths to cut into, in order: as many leading pieces as cost no further tile, the rest together."""
    budget = tiles(sum(lengths))
    cuts: list[int] = []
    rest = list(lengths)
    while len(rest) > 1:
        spent = sum(tiles(cut) for cut in cuts) + tiles(rest[0])
        if spent + tiles(sum(rest[1:])) > budget:
            break
        cuts.append(rest.pop(0))
    return [*cuts, sum(rest)]


def split_convolution(node: Node, lengths: list[int]) -> list[Node]:
    """The convolutions that write `lengths` consecutive output channels of `node` each."""
    x, weight, bias = node.inputs
    out = node.output
    assert weight is not None
    found, start = [], 0
    for length in lengths:
        shape = (out.shape[0], length, *out.shape[2:])
        piece = Value(f"{out.name}.part{start}", shape, out.dtype, None, out.range, out.quant)
        inputs = [x, _rows(weight, start, length), _rows(bias, start, length)]
        found.append(Node(node.op, inputs, [piece], dict(node.attrs), node.source))
        start += length
    return found


def _rows(value: Value | None, start: int, length: int) -> Value | None:
    if value is None or value.data is None:
        return None
    data = value.data.detach()[start : start + length].contiguous()
    quant = value.quant
    if quant is not None and quant.axis == 0:
        at = slice(start, start + length)
        quant = QuantParams(quant.scale[at], quant.zero_point[at], quant.dtype, 0)
    return Value(f"{value.name}.part{start}", tuple(data.shape), value.dtype, data, value.range, quant)
