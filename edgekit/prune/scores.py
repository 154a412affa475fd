"""What every unit is worth: numbers by which units of one group, or of all groups, compare.

l1, l2       magnitude of the rows that make a unit, batch norm counted in, and of the columns that read it;
             over the mean of its group
batch-norm   |scale| of the batch norms on its way, over the mean of its group; units without one are not
             judged, and stay
taylor       E[(change of the loss to first order)^2] when the unit is taken away. Without a loss: of the
             outputs, relative to their variance over the images, along a random direction an image: the
             Gauss-Newton estimate of their change, which needs no labels
obs          error of the layers that read it, *after* those made up for the loss in closed form (optimal
             brain surgeon), by second moments of their inputs, weighted by what such an error does to the
             outputs. Units leave one after another: of two that say the same only the first is free
random       a seeded order, to compare with

taylor and obs are squared changes of the outputs and compare across groups as they are; the others compare
within a group.

Enters: an analysis, images. Leaves: unit -> score; removing low ones costs least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.errors import PruneError, did_you_mean
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run, run_node
from edgekit.prune import rows
from edgekit.prune.groups import Analysis, Group, Place
from edgekit.prune.moments import batches, input_moments

Tensor = torch.Tensor
Loss = Callable[[list[Tensor], int], Tensor]  # outputs of a batch, number of its first image -> their sum

KINDS = ("l1", "l2", "batch-norm", "taylor", "obs", "random")
WITH_IMAGES = ("taylor", "obs")
DAMPING = 1e-3  # times the mean of the covariance's diagonal
_ROUNDS = 24  # of removal between full and half: a few units at a time


def score(
    analysis: Analysis,
    kind: str = "obs",
    images: Tensor | Sequence[Tensor] | None = None,
    loss: Loss | None = None,
    *,
    seed: int = 0,
) -> dict[int, float]:
    """unit -> score.

    Args:
        images: (N, ...), one tensor a graph input; taylor and obs need them.
        loss: outputs and the number of the first image -> the loss summed over them, for labels.
    Raises: PruneError for another kind, or one without the images it needs.
    """
    if kind not in KINDS:
        raise PruneError(f"[prune] score '{kind}'{did_you_mean(kind, KINDS)}: one of {', '.join(KINDS)}")
    if kind in WITH_IMAGES:
        if images is None:
            raise PruneError(f"[prune] score '{kind}' looks at what images do: give calibration images")
        given = [images] if isinstance(images, Tensor) else list(images)
        influence = measure(analysis, given, loss, seed=seed)
        return influence.units if kind == "taylor" else _surgeon(analysis, given, influence, seed)
    if kind == "random":
        rng = np.random.default_rng(seed)
        return {unit: float(rng.random()) for group in analysis.groups for unit in group.units}
    found: dict[int, float] = {}
    for group in analysis.groups:
        found |= _norm_scales(analysis, group) if kind == "batch-norm" else _magnitude(analysis, group, kind)
    return found


# by weights
def _magnitude(analysis: Analysis, group: Group, kind: str) -> dict[int, float]:
    power = 1 if kind == "l1" else 2
    gains = _gains(analysis.graph)
    total = dict.fromkeys(group.units, 0.0)
    for place in (*group.produces, *group.consumes):
        data = place.value.data
        if data is None or data.ndim < 2:
            continue
        lines = data.detach().double().movedim(place.dim, 0).flatten(1)
        gain = gains.get(place.value) if place in group.produces else None
        if gain is not None and len(gain) == len(lines):
            lines = lines * gain[:, None]
        sizes = lines.abs().pow(power).mean(1).pow(1 / power)
        for unit, size in _by_unit(place, sizes / sizes.mean().clamp_min(1e-30)).items():
            total[unit] += size
    return _over_mean(total)


def _norm_scales(analysis: Analysis, group: Group) -> dict[int, float]:
    weights = {n.inputs[1] for n in analysis.graph.nodes if n.op == "batch_norm" and n.inputs[1] is not None}
    total: dict[int, float] = {}
    for place in group.scales:
        if place.value in weights and place.value.data is not None:
            for unit, size in _by_unit(place, place.value.data.detach().double().abs()).items():
                total[unit] = total.get(unit, 0.0) + size
    judged = _over_mean(total)
    return {unit: judged.get(unit, math.inf) for unit in group.units}


def _gains(graph: Graph) -> dict[Value, Tensor]:
    """Weight -> what the batch norm right behind its layer multiplies the rows by."""
    counts, users, found = graph.use_counts(), graph.users(), dict[Value, Tensor]()
    for node in graph.nodes:
        weight = rows.weight_of(node)
        if weight is None or counts[node.output] != 1 or node.output not in users:
            continue
        norm = users[node.output][0]
        if norm.op == "batch_norm" and all(v is None or v.is_constant for v in norm.inputs[1:]):
            scale, var = norm.inputs[1], norm.inputs[4]
            assert var is not None and var.data is not None
            gain = torch.rsqrt(var.data.detach().double() + norm.attrs["eps"])
            if scale is not None and scale.data is not None:
                gain = gain * scale.data.detach().double().abs()
            found[weight] = gain
    return found


def _by_unit(place: Place, sizes: Tensor) -> dict[int, float]:
    """The mean over a unit's indices in one place."""
    units, where = np.unique(place.ids, return_inverse=True)
    sums = np.bincount(where, sizes.numpy()) / np.bincount(where)
    return {int(unit): float(size) for unit, size in zip(units, sums, strict=True) if unit > 0}


def _over_mean(scores: dict[int, float]) -> dict[int, float]:
    mean = sum(scores.values()) / max(1, len(scores))
    return {unit: value / mean if mean > 0 else value for unit, value in scores.items()}


# by images
@dataclass
class Influence:
    """units: squared first-order change of the outputs without the unit. layers: node -> what a squared error
    of each of its output channels does to the outputs, squared (O,).
    """

    units: dict[int, float] = field(default_factory=dict)
    layers: dict[Node, Tensor] = field(default_factory=dict)


def measure(
    analysis: Analysis, images: Sequence[Tensor], loss: Loss | None = None, *, seed: int = 0
) -> Influence:
    """First-order influence of every unit and of every reading layer, a mean over images.

    A unit acts where layers sum over it: its share in what the loss gets from there is <x, dL/dx> through
    those layers alone. Units that no layer sums over (queries, keys) are judged where they are made.
    """
    graph, labels = analysis.graph, analysis.coupling.labels
    readers, makers = _gates(analysis)
    summed = {unit for read in readers.values() for unit in labels[read].tolist()} - {0}
    derived = analysis.coupling.derived
    heads = {whole: summed & set(line.tolist()) for whole, line in derived if whole in analysis.units}
    rng = torch.Generator().manual_seed(seed)
    spread = None if loss else _variances(graph, images)
    squares, layers = np.zeros(len(labels) + 1), dict[Node, Tensor]()
    sums = dict.fromkeys(heads, 0.0)
    first = 0
    for batch in batches(graph, images):
        taken: list[tuple[Node, Tensor, Tensor]] = []

        def apply(node: Node, args: list[Tensor | None], taken: list = taken) -> Sequence[Tensor]:
            if node in readers or node in makers:
                x = args[0]
                assert x is not None
                args = [x.view_as(x) if x.requires_grad else x.detach().clone().requires_grad_(), *args[1:]]
            results = run_node(node, args)
            if node in readers or node in makers:
                taken.append((node, args[0], results[0]))  # type: ignore[arg-type]
            return results

        with torch.enable_grad():
            outputs = run(graph, batch, lambda _v, t: t.detach() if t.is_leaf else t, apply)
            if loss is not None:
                total = loss(outputs, first)
            else:
                assert spread is not None
                total = _direction(outputs, spread, rng)
            wanted = [t for _, x, y in taken for t in (x, y)]
            grads = torch.autograd.grad(total, wanted, allow_unused=True)
        terms = np.zeros((len(batch[0]), int(labels.max()) + 1))
        for i, (node, x, y) in enumerate(taken):
            grad_x, grad_y = grads[2 * i], grads[2 * i + 1]
            if grad_y is None:
                continue
            if node in readers:
                assert grad_x is not None
                _add(terms, labels[readers[node]], node, x.detach() * grad_x)
                energy = _channels(node, grad_y.square(), len(batch[0])).sum((0, 1)).double()
                layers[node] = layers.get(node, torch.zeros_like(energy)) + energy
            if node in makers:
                _add(terms, labels[makers[node]], node, y.detach() * grad_y)
        squares[: terms.shape[1]] += np.square(terms).sum(0)
        for whole, line in heads.items():
            sums[whole] += float(np.square(terms[:, sorted(line)].sum(1)).sum())
        first += len(batch[0])
    units = {unit: float(squares[unit] / first) for group in analysis.groups for unit in group.units}
    units |= {whole: value / first for whole, value in sums.items()}
    return Influence(units, {node: energy / first for node, energy in layers.items()})


def _gates(analysis: Analysis) -> tuple[dict[Node, np.ndarray], dict[Node, np.ndarray]]:
    """Layers that sum over units, with the atoms they read; those that make units which nobody sums over."""
    coupling, readers = analysis.coupling, dict[Node, np.ndarray]()
    summed: set[int] = set()
    for node, weighing in coupling.weighings.items():
        if weighing.read is not None:
            readers[node] = weighing.read
            summed.update(np.unique(coupling.labels[weighing.read]).tolist())
    makers = {}
    for node, weighing in coupling.weighings.items():
        if weighing.made is None:
            continue
        ids = coupling.labels[weighing.made]
        alone = np.isin(ids, list(set(np.unique(ids).tolist()) - summed - {0}))
        if alone.any():
            makers[node] = np.where(alone, weighing.made, 0)
    return readers, makers


def _add(terms: np.ndarray, ids: np.ndarray, node: Node, products: Tensor) -> None:
    """Sums of the products over each image and unit."""
    sums = _channels(node, products, len(terms)).sum(1).double().numpy()  # (N, C)
    for image, line in zip(terms, sums, strict=True):
        image += np.bincount(ids, line, minlength=len(image))


def _channels(node: Node, tensor: Tensor, images: int) -> Tensor:
    """(N, positions, C)."""
    last = tensor if node.op == "linear" else tensor.movedim(1, -1)
    return last.reshape(images, -1, last.shape[-1])


def _variances(graph: Graph, images: Sequence[Tensor]) -> list[float]:
    """Of every output its summed variance over the images; its energy where there is but one image."""
    with torch.no_grad():
        seen = [run(graph, batch) for batch in batches(graph, images)]
    found = []
    for pieces in zip(*seen, strict=True):
        values = torch.cat([piece.reshape(-1, pieces[0][:1].numel()) for piece in pieces]).double()
        centred = values - values.mean(0) if len(values) > 1 else values
        found.append(float(centred.square().sum(1).mean().clamp_min(1e-30)))
    return found


def _direction(outputs: list[Tensor], spread: list[float], rng: torch.Generator) -> Tensor:
    """The outputs along a random direction, of unit variance a number: a seeded probe an image."""
    total = torch.zeros(())
    for output, energy in zip(outputs, spread, strict=True):
        if output.is_floating_point() and output.requires_grad:
            total = total + (output * torch.randn(output.shape, generator=rng)).sum() / math.sqrt(energy)
    return total


# optimal brain surgeon
def _surgeon(
    analysis: Analysis, images: Sequence[Tensor], influence: Influence, seed: int
) -> dict[int, float]:
    """What leaves costs, in the order in which it is cheapest, group by group."""
    readers, _ = _gates(analysis)
    labels = analysis.coupling.labels
    readers = {node: read for node, read in readers.items() if rows.weight_of(node) is not None}
    folded = {node: _columns(labels[read], rows.groups_of(node)) for node, read in readers.items()}
    views = {node: _view(node, columns) for node, columns in folded.items()}
    moments = input_moments(analysis.graph, images, views, seed)
    found = dict(influence.units)
    for group in analysis.groups:
        units = set(group.units)
        layers = [
            layer
            for node, columns in folded.items()
            if units & set(columns.units.flatten().tolist())
            for layer in _layers(node, columns, moments[node].covariance, influence.layers.get(node), units)
        ]
        if layers:
            found |= _removal(sorted(units), layers)
    return found


@dataclass(frozen=True)
class _Columns:
    """order (G, n, m): input channels of each of n units' m appearances. units (G, n)."""

    order: np.ndarray
    units: np.ndarray


def _columns(ids: np.ndarray, groups: int) -> _Columns:
    """Channels of one unit side by side: a layer behind a flattened map reads it at every place. Where units
    appear unequally often, and for channels that stay, each channel is by itself.
    """
    lines = ids.reshape(groups, -1)
    width = lines.shape[1]
    counts = [np.unique(line, return_counts=True)[1] for line in lines]
    times = int(counts[0][0])
    if all((c == times).all() for c in counts) and (lines > 0).all():
        order = np.argsort(lines, 1, kind="stable").reshape(groups, -1, times)
    else:
        order = np.broadcast_to(np.arange(width)[None, :, None], (groups, width, 1))
    units = np.take_along_axis(lines, order[:, :, 0], 1)
    return _Columns(order, units)


def _view(node: Node, columns: _Columns) -> Callable[[Tensor], Tensor]:
    groups, _, times = columns.order.shape
    index = torch.from_numpy(columns.order.copy())

    def view(x: Tensor) -> Tensor:
        last = x if node.op == "linear" else x.movedim(1, -1)
        lines = last.reshape(-1, groups, last.shape[-1] // groups)
        picked = torch.stack([lines[:, g, index[g].flatten()] for g in range(groups)], 1)
        return picked.reshape(len(lines), groups, -1, times).permute(0, 3, 1, 2).flatten(0, 1)

    return view


@dataclass
class _Layer:
    """One group of a reading layer: the inverse covariance (n, n) of its units' activations, the weights
    (n, outputs * taps) over the square root of the outputs' influence, and the units, 0 where another's.
    """

    inverse: Tensor
    weight: Tensor
    units: np.ndarray

    def costs(self) -> Tensor:
        """Of each alone: the error that is left when the others make up for it."""
        return self.weight.square().sum(1) / self.inverse.diagonal().clamp_min(1e-30)

    def remove(self, gone: Tensor, left: Tensor) -> None:
        """Take out rows `gone`; `left` are the others, which take over what they can."""
        block = self.inverse[gone][:, gone]
        across = torch.linalg.solve(block, self.inverse[gone][:, left])  # (gone, left)
        self.weight = self.weight[left] - across.T @ self.weight[gone]
        self.inverse = self.inverse[left][:, left] - self.inverse[left][:, gone] @ across
        self.units = self.units[left.numpy()]


def _layers(
    node: Node, columns: _Columns, covariance: Tensor, influence: Tensor | None, units: set[int]
) -> list[_Layer]:
    weight = rows.weight_of(node)
    assert weight is not None and weight.data is not None
    groups, n, times = columns.order.shape
    data = weight.data.detach().double()
    outputs = data.shape[0] // groups
    gain = torch.ones(data.shape[0], dtype=torch.float64) if influence is None else influence
    scaled = (data.flatten(1) * gain.clamp_min(0).sqrt()[:, None]).reshape(groups, outputs, data.shape[1], -1)
    found = []
    for g in range(groups):
        own = np.where(np.isin(columns.units[g], list(units)), columns.units[g], 0)
        if not own.any():
            continue
        order = torch.from_numpy(np.ascontiguousarray(columns.order[g]).reshape(-1))
        lines = scaled[g][:, order].reshape(outputs, n, times, -1).permute(1, 0, 2, 3).reshape(n, -1)
        root = rows.factor(covariance[g : g + 1], DAMPING)[0]
        found.append(_Layer(torch.cholesky_inverse(root), lines, own))
    return found


def _removal(units: list[int], layers: list[_Layer]) -> dict[int, float]:
    """Units in the order in which they leave, with what each then costs; a few at a time."""
    size = max(units) + 1
    left = set(units)
    found: dict[int, float] = {}
    highest = 0.0
    while left:
        cost = np.zeros(size)
        for layer in layers:
            np.add.at(cost, layer.units, layer.costs().numpy())
        order = sorted(left, key=lambda unit: (cost[unit], unit))
        now = order[: max(1, len(left) // _ROUNDS)]
        for unit in now:
            highest = max(highest, float(cost[unit]))
            found[unit] = highest
        left -= set(now)
        if not left:
            break
        for layer in layers:
            gone = np.isin(layer.units, now)
            if gone.any() and not gone.all():
                layer.remove(torch.from_numpy(np.flatnonzero(gone)), torch.from_numpy(np.flatnonzero(~gone)))
    return found
