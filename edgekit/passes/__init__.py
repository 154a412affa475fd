"""Float rewrites every target wants, in the order they run: the text is the documentation.

Enters: a captured Graph. Leaves: the same Graph with batch norm folded, activations fused into their
producers, and pooling, padding and shuffles in one canonical spelling. Each pass is
`Graph -> number of rewrites`, keeps the function (to float rounding) and the surviving values' names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.errors import GraphError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.passes.canonicalize_pooling import canonicalize_pooling
from edgekit.passes.convert_batch_norm import convert_batch_norm
from edgekit.passes.drop_padded_channels import drop_padded_channels
from edgekit.passes.drop_training import drop_training
from edgekit.passes.expand_attention import expand_attention
from edgekit.passes.fold_batch_norm import fold_batch_norm
from edgekit.passes.fold_scale import fold_scale
from edgekit.passes.fuse_activation import fuse_activation
from edgekit.passes.fuse_padding import fuse_padding
from edgekit.passes.merge_movement import merge_movement
from edgekit.passes.recognize_activation import recognize_activation
from edgekit.passes.recognize_channel_shuffle import recognize_channel_shuffle
from edgekit.passes.recognize_l2_normalize import recognize_l2_normalize
from edgekit.passes.recognize_pixel_shuffle import recognize_pixel_shuffle

Pass = Callable[[Graph], int]

FLOAT: tuple[Pass, ...] = (
    drop_training,
    expand_attention,
    recognize_activation,  # before fuse_activation: x * relu6(x + 3) / 6 must still be in pieces
    recognize_channel_shuffle,  # before merge_movement: it must see reshape, permute, reshape
    recognize_l2_normalize,
    recognize_pixel_shuffle,
    canonicalize_pooling,
    merge_movement,
    drop_padded_channels,
    fuse_padding,
    fold_batch_norm,
    convert_batch_norm,  # after fold_batch_norm: what is left has no convolution before it
    fold_scale,
    fuse_activation,  # last: every earlier pass wants to see bare producers
)


@dataclass(frozen=True)
class PassRecord:
    name: str
    rewrites: int
    seconds: float


def optimize(graph: Graph, passes: tuple[Pass, ...] = FLOAT) -> list[PassRecord]:
    """Run the passes in order on `graph`, checking it after every change; returns what each did."""
    records: list[PassRecord] = []
    for rewrite in passes:
        began = time.perf_counter()
        count = rewrite(graph)
        removed = graph.remove_dead()
        try:
            if count or removed:
                check(graph)
        except GraphError as error:
            before = ", ".join(r.name for r in records) or "none"
            raise GraphError(f"[passes] {rewrite.__name__} (after {before}): {error}") from error
        records.append(PassRecord(rewrite.__name__, count, time.perf_counter() - began))
    return records
