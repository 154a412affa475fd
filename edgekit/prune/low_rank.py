"""A large linear or 1x1 layer as a product of two smaller ones.

    W x + b  ~  U (V x) + b'      W (O, I), V (r, I), U (O, r)

The factors of rank r that lose least of the layer's *output* over images: with C the covariance of x and
S S^T = C, the singular value decomposition of W S, cut at r, and S taken off again. Rank min(O, I) is exact.
The bias makes up for the mean. A rank pays where two thinner products cost less than one: what it costs is
asked of the given price (measured milliseconds, or MACs), layer by layer.

Enters: a graph, images, a price of graphs. Leaves: a new graph, and what each layer became.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgekit.errors import PruneError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.prune import rows
from edgekit.prune.moments import Moment, input_moments, pixels

Tensor = torch.Tensor
Price = Callable[[Graph], float]

DAMPING = 1e-6  # of the covariance's mean eigenvalue: the least
RANK_STEP = 16
MAX_SIZE = 4608  # of the matrix that is decomposed


@dataclass(frozen=True)
class Factored:
    """One layer: its rank of so many, the error of its output (squared, relative to its variance over the
    images), and what the whole network's price became, before and after.
    """

    name: str
    rank: int
    of: int
    error: float
    price_before: float
    price_after: float


@dataclass(frozen=True)
class LowRank:
    graph: Graph
    layers: tuple[Factored, ...]
    left: Mapping[str, str]  # name of a layer -> why it stays whole


def factorise(graph: Graph, ranks: Mapping[str, int], images: Tensor | Sequence[Tensor]) -> Graph:
    """A new graph in which the layers of these weights are products of that rank.

    Args:
        ranks: name of a weight -> rank, from 1 to the smaller side of the matrix.
    Raises: PruneError for a weight that is no large product, or a rank that it cannot have.
    """
    found = {_weight(node).name: node for node in _candidates(graph)}
    if unknown := [name for name in ranks if name not in found]:
        raise PruneError(
            f"[prune] low rank of {unknown[0]}: weights of linear and 1x1 layers with one reader"
        )
    chosen = {found[name]: rank for name, rank in ranks.items()}
    moments = input_moments(graph, images, {node: pixels(node) for node in chosen})
    made = graph
    for node, rank in chosen.items():
        made = _split(made, node.output.name, _decompose(node, moments[node]), rank)
    return made


def low_rank(
    graph: Graph,
    images: Tensor | Sequence[Tensor],
    price: Price,
    *,
    max_error: float = 0.02,
    least_gain: float = 0.005,
) -> LowRank:
    """Factor the layers in which that pays.

    Args:
        price: what a graph costs (predicted milliseconds, MACs).
        max_error: of one layer's output, squared, relative to its variance.
        least_gain: of the whole network's price, relative, that one layer must bring.
    Returns: each layer at the smallest rank, a multiple of 16 where it can be, that keeps its error; taken
        only if the network's price falls by `least_gain`.
    """
    nodes = _candidates(graph)
    moments = input_moments(graph, images, {node: pixels(node) for node in nodes})
    made, now = graph, price(graph)
    layers: list[Factored] = []
    left: dict[str, str] = {}
    for node in nodes:
        name, full = _weight(node).name, min(_weight(node).shape[:2])
        parts = _decompose(node, moments[node])
        rank = parts.rank(max_error)
        worth = _weight(node).data.numel() / sum(_weight(node).shape[:2])  # type: ignore[union-attr]
        if rank >= worth:
            left[name] = f"rank {rank} of {full} keeps its error below {max_error:g}: no fewer products"
            continue
        tried = _split(made, node.output.name, parts, rank)
        after = price(tried)
        if now - after < least_gain * now:
            left[name] = f"rank {rank} of {full} takes {after:.4g} where {now:.4g} were: does not pay"
            continue
        layers.append(Factored(name, rank, full, parts.error(rank), now, after))
        made, now = tried, after
    return LowRank(made if layers else graph.copy(), tuple(layers), left)


@dataclass(frozen=True)
class _Parts:
    """A weight's decomposition: W = left @ diag(values) @ right, by what each part brings to the output."""

    left: Tensor  # (O, F)
    values: Tensor  # (F,), falling
    right: Tensor  # (F, I)
    mean: Tensor  # (I,)

    def error(self, rank: int) -> float:
        energy = self.values.square()
        return float(energy[rank:].sum() / energy.sum().clamp_min(1e-30))

    def rank(self, max_error: float) -> int:
        """The smallest rank of that error, rounded up to what kernels like."""
        full = len(self.values)
        least = next((r for r in range(1, full) if self.error(r) <= max_error), full)
        return min(full, -(-least // RANK_STEP) * RANK_STEP)


def _candidates(graph: Graph) -> list[Node]:
    """Linear and dense 1x1 layers whose weights nobody else reads."""
    uses = graph.use_counts()
    found = []
    for node in graph.nodes:
        weight, bias = rows.weight_of(node), node.inputs[2] if len(node.inputs) > 2 else None
        if weight is None or uses[weight] > 1 or min(weight.shape[:2]) < 2 or max(weight.shape) > MAX_SIZE:
            continue
        if not (bias is None or bias.is_constant):
            continue
        if node.op == "linear" or (node.attrs["groups"] == 1 and tuple(weight.shape[2:]) == (1, 1)):
            found.append(node)
    return found


def _weight(node: Node) -> Value:
    weight = node.inputs[1]
    assert weight is not None and weight.data is not None
    return weight


def _decompose(node: Node, moment: Moment) -> _Parts:
    weight = _weight(node).data.detach().double().flatten(1)  # type: ignore[union-attr]
    spread, axes = torch.linalg.eigh(moment.covariance[0])
    root = spread.clamp_min((DAMPING * spread.mean()).clamp_min(1e-12)).sqrt()
    left, values, right = torch.linalg.svd((weight @ axes) * root, full_matrices=False)
    unrooted = (right / root) @ axes.T
    return _Parts(left, values, unrooted, moment.mean[0])


def _split(graph: Graph, name: str, parts: _Parts, rank: int) -> Graph:
    """A copy in which the layer that makes the value `name` is two."""
    if not 1 <= rank <= len(parts.values):
        raise PruneError(f"[prune] rank {rank} of the layer behind {name}: 1 to {len(parts.values)}")
    made = graph.copy()
    index, node = next((i, n) for i, n in enumerate(made.nodes) if n.output.name == name)
    weight, bias = _weight(node), node.inputs[2]
    whole = weight.data.detach().double().flatten(1)  # type: ignore[union-attr]
    root = parts.values[:rank].sqrt()
    down = root[:, None] * parts.right[:rank]
    up = parts.left[:, :rank] * root
    lost = (whole - up @ down) @ parts.mean  # what the dropped part brings on average
    kernel = (1, 1) if node.op == "conv2d" else ()
    stem = weight.name.removesuffix(".weight")
    dtype = weight.data.dtype  # type: ignore[union-attr]

    def constant(suffix: str, data: Tensor) -> Value:
        return Value(made.fresh_name(f"{stem}.{suffix}"), tuple(data.shape), data=data.to(dtype))

    x = node.inputs[0]
    assert x is not None
    shape = list(node.output.shape)
    shape[1 if node.op == "conv2d" else -1] = rank
    between = Value(made.fresh_name(f"{name}_down"), tuple(shape), node.output.dtype)
    attrs = {key: value for key, value in node.attrs.items() if key != "activation"}
    first = Node(
        node.op, [x, constant("down.weight", down.reshape(*down.shape, *kernel)), None], [between], attrs
    )
    offset = lost if bias is None or bias.data is None else bias.data.detach().double() + lost
    if node.op == "conv2d":
        second_attrs = dict(node.attrs) | {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    else:
        second_attrs = dict(node.attrs)
    second = Node(
        node.op,
        [between, constant("up.weight", up.reshape(*up.shape, *kernel)), constant("up.bias", offset)],
        node.outputs,
        second_attrs,
    )
    first.source = second.source = node.source
    made.nodes[index : index + 1] = [first, second]
    return made
