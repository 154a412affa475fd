"""pad of channels, then conv2d whose weights there are all zero -> conv2d of the channels there are.

Files for ONNX Runtime have such an image: its integer kernel takes channels in fours.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.passes.rewrite import ConstantNames


def drop_padded_channels(graph: Graph) -> int:
    producers, names = graph.producers(), ConstantNames(graph)
    dropped = 0
    for node in graph.nodes:
        pad = producers.get(node.inputs[0]) if node.op == "conv2d" else None  # type: ignore[arg-type]
        weight = node.inputs[1] if pad is not None else None
        if pad is None or weight is None or weight.data is None or node.attrs["groups"] != 1:
            continue
        if pad.op != "pad" or not _only_behind_the_channels(pad):
            continue
        image = pad.inputs[0]
        assert image is not None
        kept, rest = weight.data.split([image.shape[1], weight.shape[1] - image.shape[1]], 1)
        if rest.any():
            continue
        narrow: Value = names.new(weight.name, kept.contiguous(), replaces=weight)
        narrow.quant, narrow.range = weight.quant, weight.range
        node.inputs[:2] = [image, narrow]
        dropped += 1
    return dropped


def _only_behind_the_channels(pad: Node) -> bool:
    pads = pad.attrs["pads"]  # from the last dimension on: width, height, channels
    return len(pad.output.shape) == 4 and len(pads) == 6 and not any(pads[:5]) and pads[5] > 0
