"""Closed-form recovery: the layers behind a cut are fitted to what the original made there.

Front to back, every convolution and linear layer gets the weights of least squared error between its output
and the original's at the same place, over calibration images, reading what the pruned network really gives
it: channels that are left stand in for those that went, as far as they say the same, and errors from further
up are repaired. Where the result joins a sum, the target is the original's sum less what the pruned network's
other branch brings: the error of a residual stream is repaired block by block.

    minimise |X w + b - Y|^2 + ridge |w - w0|^2      w0: the weights as they were cut

One image in four is held out; the ridge, and whether anything is changed at all, is what predicts those best.
A batch norm behind a layer without a bias takes the bias into its mean. The sums are in float64.

Enters: the original, the cut graph, images. Leaves: a new graph, and the error of every layer on the images
held out, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.batch import bytes_per_image
from edgekit.graph.batch_norm import affine
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import finish, run_node, walk
from edgekit.prune import rows

Tensor = torch.Tensor
Batches = list[Tensor]
Left = Mapping[int, Tensor]  # dimension -> which of the original's places are left, all where absent

BATCH = 16
BUDGET_BYTES = 1 << 30  # of both networks' tensors, alive at the same time
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # times the mean of the moment's diagonal
MAX_COLUMNS = 4608
ROWS = (3072, 20480)  # at least and at most; between them eight for each column
HELD_OUT = 4  # every fourth image judges


@dataclass(frozen=True)
class Layer:
    """What the fit did to one layer; errors are squared, relative to the variance of the original's output,
    on images that the fit did not see. ridge None: the weights as they were cut.
    """

    name: str
    before: float
    after: float
    ridge: float | None


@dataclass(frozen=True)
class Refit:
    graph: Graph
    layers: tuple[Layer, ...]


def refit(
    original: Graph,
    pruned: Graph,
    images: Tensor | Sequence[Tensor],
    *,
    kept: Mapping[str, Left | None] | None = None,
    seed: int = 0,
) -> Refit:
    """Weights of `pruned` by least squares on what `original` answers inside.

    Args:
        images: (N, ...), one tensor a graph input; as many of them are used as fit into the memory budget.
        kept: name of a layer's output -> which of the original's places are left of it along each dimension;
            all where absent. None: they are not a block, and the layer stays as it was cut.
    Returns: a new graph; the given ones stay as they are.
    """
    given = [images] if isinstance(images, Tensor) else list(images)
    each = bytes_per_image(original) + bytes_per_image(pruned)
    count = min(len(given[0]), max(HELD_OUT, BUDGET_BYTES // each))
    size = BATCH if original.batchable and pruned.batchable else 1
    inputs = [list(x[:count].float().split(size)) for x in given]
    graph = pruned.copy()
    fitter = _Fitter(original, graph, kept or {}, count, size, seed)
    with torch.no_grad():
        fitter.follow(inputs)
    return Refit(graph, tuple(fitter.layers))


class _Original:
    """The original's run, as far as it was asked for, keeping what will be asked for."""

    def __init__(self, graph: Graph, inputs: Sequence[Batches], wanted: set[str]) -> None:
        self.wanted = wanted
        self.seen: dict[str, Batches] = {}
        count = len(inputs[0])
        self.steps = walk(graph, inputs, _each_batch, lambda _v, given: _batches(given, count))

    def at(self, name: str) -> Batches:
        """The value of that name in every batch."""
        while name not in self.seen:
            node, results = next(self.steps)
            for value, result in zip(node.outputs, results, strict=True):
                if value.name in self.wanted:
                    self.seen[value.name] = result
        return self.seen[name]

    def forget(self, name: str) -> None:
        self.seen.pop(name, None)


class _Fitter:
    def __init__(
        self,
        original: Graph,
        graph: Graph,
        kept: Mapping[str, Left | None],
        count: int,
        size: int,
        seed: int,
    ) -> None:
        self.graph, self.kept, self.count, self.size = graph, kept, count, size
        self.origin, self.layers = original, list[Layer]()
        self.rng = torch.Generator().manual_seed(seed)
        uses, self.users = graph.use_counts(), graph.users()
        self.sole = {value for value, n in uses.items() if n == 1}
        theirs = {node.output.name: node for node in original.nodes}
        self.fits = {
            node: theirs[node.output.name]
            for node in graph.nodes
            if self._fitting(node) and node.output.name in theirs and self._left(node) is not None
        }
        self.sums = {node: found for node in self.fits if (found := self._sum_behind(node))}
        self.waiting: dict[Value, Batches] = {}  # the other branch of a sum, as it comes

    def _fitting(self, node: Node) -> bool:
        weight = rows.weight_of(node)
        if weight is None or weight not in self.sole or node.attrs.get("activation"):
            return False
        bias = node.inputs[2]
        return weight.data is not None and (bias is None or (bias.is_constant and bias in self.sole))

    def _left(self, node: Node) -> Left | None:
        return self.kept.get(node.output.name, {})

    def _norm_behind(self, node: Node) -> Node | None:
        if node.output not in self.sole or node.output not in self.users:
            return None
        behind = self.users[node.output][0]
        own = all(v is None or v.is_constant for v in behind.inputs[1:]) and behind.op == "batch_norm"
        return behind if own and behind.inputs[0] is node.output else None

    def _sum_behind(self, node: Node) -> tuple[Node, Value] | None:
        """The addition that alone reads this layer (or the batch norm behind it), and its other operand."""
        last = (self._norm_behind(node) or node).output
        if last not in self.sole or last not in self.users:
            return None
        behind = self.users[last][0]
        if behind.op != "add" or behind.attrs.get("activation"):
            return None
        others = [v for v in behind.operands if v is not last]
        same = len(others) == 1 and others[0].shape == last.shape and not others[0].is_constant
        return (behind, others[0]) if same else None

    def follow(self, inputs: Sequence[Batches]) -> None:
        """Run both networks side by side; every layer is fitted before its result is used."""
        wanted = {node.output.name for node in self.fits} | {s.output.name for s, _ in self.sums.values()}
        self.original = _Original(self.origin, inputs, wanted)
        others = {other for _, other in self.sums.values()}
        count = len(inputs[0])

        def on_value(value: Value, given: Batches | Tensor) -> Batches:
            batches = _batches(given, count)
            if value in others:
                self.waiting[value] = batches
            return batches

        def apply(node: Node, args: list[Batches | None]) -> list[Batches]:
            if node in self.fits:
                x = args[0]
                assert x is not None
                self.fit(node, x)
                args = [
                    [value.data] * count if value is not None and value.data is not None else arg
                    for value, arg in zip(node.inputs, args, strict=True)
                ]
            elif node.op == "add":
                self.original.forget(node.output.name)
                for value in node.operands:
                    self.waiting.pop(value, None)
            return _each_batch(node, args)

        finish(walk(self.graph, inputs, apply, on_value))

    def fit(self, node: Node, x: Batches) -> None:
        """Give one layer the weights that predict the held-out images best."""
        weight, bias, norm = node.inputs[1], node.inputs[2], self._norm_behind(node)
        assert weight is not None and weight.data is not None
        theirs = self.fits[node]
        out = self.original.at(theirs.output.name)
        self.original.forget(theirs.output.name)
        columns = weight.data[0].numel()
        if columns > MAX_COLUMNS:
            return
        read, wanted, held = self._rows(node, x, out)
        start = rows.matrix(node, weight.data).double()
        intercept = bias is not None or norm is not None
        shift = torch.zeros(len(weight.data), dtype=torch.float64) if bias is None else bias.data.double()  # type: ignore[union-attr]
        solved = _solve(read, wanted, held, start, shift, intercept)
        self.layers.append(Layer(node.source or weight.name, solved.before, solved.after, solved.ridge))
        if solved.ridge is None:
            return
        weight.data = solved.weight.transpose(1, 2).reshape(weight.shape).to(weight.data.dtype)
        if bias is not None:
            bias.data = solved.shift.to(weight.data.dtype)
        elif norm is not None:
            mean = norm.inputs[3]
            assert mean is not None and mean.data is not None
            mean.data = (mean.data.double() - solved.shift).to(mean.data.dtype)

    def _rows(self, node: Node, x: Batches, out: Batches) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer reads (R, G, K), what it should make (R, O), and which rows are held out (R,)."""
        columns = math.prod(node.inputs[1].shape[1:])  # type: ignore[union-attr]
        least, most = ROWS
        share = min(most, max(least, 8 * columns)) / self.count
        sums = self._corrected(node, out)
        first, read, wanted, held = 0, list[Tensor](), list[Tensor](), list[Tensor]()
        for given, target in zip(x, sums, strict=True):
            images = min(self.size, self.count - first)
            at = rows.positions(node, target, max(1, round(share * images)), self.rng)
            per_image = max(1, target.numel() // target.shape[_channel_dim(node)] // images)
            read.append(rows.read(node, given, at))
            wanted.append(rows.made(node, target, at))
            held.append((first + at // per_image) % HELD_OUT == HELD_OUT - 1)
            first += images
        return torch.cat(read), torch.cat(wanted), torch.cat(held)

    def _corrected(self, node: Node, out: Batches) -> Batches:
        """The original's output at the places that are left, less what another branch already lost."""
        dim, left = _channel_dim(node), self._left(node)
        assert left is not None
        own = [taken(t, left) for t in out]
        found = self.sums.get(node)
        if found is None or found[1] not in self.waiting:
            return own
        behind, other = found
        norm = self._norm_behind(node)
        wanted = [taken(t, left) for t in self.original.at(behind.output.name)]
        missing = [a - b for a, b in zip(wanted, self.waiting[other], strict=True)]
        if norm is None:
            return missing
        gain, offset = (part.to(own[0].dtype) for part in affine(norm))
        shape = [1] * own[0].ndim
        shape[dim] = -1
        usable = (gain.abs() > 1e-4 * gain.abs().max()).reshape(shape)
        safe = torch.where(usable, gain.reshape(shape), 1.0)
        return [
            torch.where(usable, (m - offset.reshape(shape)) / safe, t)
            for m, t in zip(missing, own, strict=True)
        ]


@dataclass(frozen=True)
class _Solution:
    weight: Tensor  # (G, K, O / G)
    shift: Tensor  # (O,)
    before: float
    after: float
    ridge: float | None


def _solve(
    read: Tensor, wanted: Tensor, held: Tensor, start: Tensor, shift: Tensor, intercept: bool
) -> _Solution:
    """Least squares around `start` with the ridge that the held-out rows prefer."""
    groups = start.shape[0]
    target = wanted.reshape(len(wanted), groups, -1)
    fit, judge = (~held if bool(held.any()) and bool((~held).any()) else torch.ones_like(held)), held
    judge = judge if bool(judge.any()) else fit
    moments = _Moments(read[fit], target[fit], intercept)
    scale = (target[judge].double() - target[judge].double().mean(0)).square().sum().clamp_min(1e-30)

    def error(weight: Tensor, offset: Tensor) -> float:
        got = torch.einsum("rgk,gko->rgo", read[judge], weight.float()) + offset.reshape(groups, -1).float()
        return float((got - target[judge]).double().square().sum() / scale)

    before = error(start, shift)
    best: tuple[float, float | None] = (before, None)
    if before > 1e-8:  # else its inputs are the original's: there is nothing to repair
        for ridge in RIDGES:
            found = moments.solve(start, shift, ridge)
            after = error(*found)
            if after < best[0] * 0.999:
                best = (after, ridge)
    after, chosen = best
    if chosen is None:
        return _Solution(start, shift, before, before, None)
    weight, offset = _Moments(read, target, intercept).solve(start, shift, chosen)
    return _Solution(weight, offset, before, after, chosen)


class _Moments:
    """Second moments of what a layer reads and should make, about their means where there is an intercept."""

    def __init__(self, read: Tensor, target: Tensor, intercept: bool) -> None:
        self.intercept = intercept
        self.mean_read = read.double().mean(0)  # (G, K)
        self.mean_target = target.double().mean(0)  # (G, O / G)
        x = read - self.mean_read.float() if intercept else read
        y = target - self.mean_target.float() if intercept else target
        self.xx = rows.product(x, x)
        self.xy = rows.product(x, y)

    def solve(self, start: Tensor, shift: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Weights (G, K, O / G) and shift (O,)."""
        missing = self.xy - self.xx @ start
        weight = start + torch.cholesky_solve(missing, rows.factor(self.xx, ridge))
        if not self.intercept:
            return weight, shift
        offset = self.mean_target - (self.mean_read[:, None] @ weight)[:, 0]
        return weight, offset.reshape(-1)


def taken(tensor: Tensor, left: Left) -> Tensor:
    """The places that are left."""
    for dim, places in left.items():
        tensor = tensor.index_select(dim, places)
    return tensor


def _channel_dim(node: Node) -> int:
    return 1 if node.op == "conv2d" else -1


def _batches(given: Batches | Tensor, count: int) -> Batches:
    """A constant is the same in every batch."""
    return [given] * count if isinstance(given, Tensor) else given


def _each_batch(node: Node, args: list[Batches | None]) -> list[Batches]:
    """A node in every batch: its results, one list of batches each."""
    count = max(len(arg) for arg in args if arg is not None)
    results = [run_node(node, [None if arg is None else arg[i] for arg in args]) for i in range(count)]
    return [list(column) for column in zip(*results, strict=True)]
