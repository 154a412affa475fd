"""Training of a quantized graph: `light` without labels, `full` with labels or by distillation.

    found = light(annotated, plain, images, held)
    found.graph                              # trained where the held-out images say so, else `annotated`

`light` moves scales, biases and weights by fractions of a step towards the float graph's answers and what it
computes at its waists; `full` is the loop of `edgekit.train` with whatever it can learn from. Both leave
weights in folded form, zero points and dictated scales as they were.

Enters: an annotated graph, the float graph it came from, images. Leaves: `Trained`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from edgekit.graph.ir import Graph
from edgekit.graph.module import GraphModule, as_module
from edgekit.qat.judge import Judgement, by_answers, by_labels, flat, float_answers, simulated_answers
from edgekit.qat.module import QuantizedModule, biases, depthwise, grid, held, units, weight_scales
from edgekit.qat.optimizer import AdamInUnits
from edgekit.qat.waists import factors, waists
from edgekit.quantize.images import Given
from edgekit.train.data import Data, Inputs
from edgekit.train.distillation import relative_error, soft_loss
from edgekit.train.loop import Optimizers, Progress, TrainRecord, fit
from edgekit.train.settings import Settings

Tensor = torch.Tensor
T = TypeVar("T")
_CHECKPOINT = "light.pt"
_FACTOR_IMAGES = 32


@dataclass(frozen=True)
class Rates:
    """The highest rates: of weights in their own steps, of biases in their outputs', of scales' logarithms.

    weight_scales: 0 leaves them as calibrated. freezes: see AdamInUnits, of depthwise weights.
    """

    weights: float
    biases: float
    scales: float
    weight_scales: float = 0.0
    freezes: float = 0.0


LIGHT_RATES = Rates(weights=4.5e-3, biases=2.5e-3, scales=2.5e-4)
FULL_RATES = Rates(weights=2e-2, biases=1e-2, scales=5e-4, weight_scales=1e-4, freezes=0.02)


@dataclass(frozen=True)
class Light:
    """What `light` does. blocks, likely: weights of the waists' errors and of the classes' divergence.

    classes: which output holds class scores, None for none.
    """

    steps: int = 160
    batch: int = 16
    rates: Rates = LIGHT_RATES
    warmup: int = 10
    ema: float = 20.0
    blocks: float = 0.3
    likely: float = 1.0
    classes: int | None = None
    seed: int = 0

    def settings(self, **more: Any) -> Settings:
        return Settings(
            steps=self.steps,
            batch=self.batch,
            freeze_batch_norm="statistics",
            warmup=min(1.0, self.warmup / self.steps),
            ema=self.ema,
            seed=self.seed,
            **more,
        )


@dataclass(frozen=True)
class Trained(Generic[T]):
    """graph: the trained one where it was accepted, else the one that was given. record: of the training."""

    graph: Graph
    judgement: Judgement
    record: T


def in_units(rates: Rates) -> Optimizers:
    """Optimizers of a quantized module: weights, biases and scales in groups of their own rates."""

    def make(module: nn.Module) -> list[torch.optim.Optimizer]:
        assert isinstance(module, QuantizedModule)
        own, deep = weight_scales(module), depthwise(module)
        sizes = {_parameter(module, path): unit for path, unit in units(module).items()}
        rows: list[tuple[list[str], float, float]] = [
            ([path for path in own if path not in deep], rates.weights, 0.0),
            ([path for path in own if path in deep], rates.weights, rates.freezes),
            (sorted(biases(module)), rates.biases, 0.0),
        ]
        scales = [([module.scales_path], rates.scales), (list(own.values()), rates.weight_scales)]
        groups = [
            {"params": [_parameter(module, path) for path in paths], "peak": rate, "freezes": freezes}
            for paths, rate, freezes in rows
            if paths and rate > 0
        ]
        grids = {_parameter(module, path): grid(module, path) for path in deep}
        found: list[torch.optim.Optimizer] = [AdamInUnits(groups, sizes, grids)]
        learned = [
            {"params": [_parameter(module, path) for path in paths], "peak": rate}
            for paths, rate in scales
            if rate > 0 and any(held(module, path).numel() for path in paths)
        ]
        return [*found, AdamInUnits(learned, {})] if learned else found

    return make


def _parameter(module: QuantizedModule, path: str) -> nn.Parameter:
    found = held(module, path)
    assert isinstance(found, nn.Parameter)
    return found


def light(
    annotated: Graph,
    plain: Graph,
    data: Data,
    images: Given,
    told: Light | None = None,
    *,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Trained[TrainRecord]:
    """Teach an annotated graph the answers of the float graph; labels are not looked at.

    Args:
        annotated: what calibration made of `plain`, with the same names. data: inputs to train on.
        images: held out: (N, ...), one tensor an input.
        directory: for the checkpoint: a training that was killed goes on there.
    """
    told = told or Light()
    module, teacher = QuantizedModule(annotated), as_module(plain).eval()
    inside = waists(annotated) if told.blocks > 0 else []
    rescaled = _rescaled(module, teacher, inside, data, told)

    def objective(given: Inputs, _labels: Tensor | None, _strength: float) -> Tensor:
        meant: dict[str, Tensor] = {}
        errors: list[Tensor] = []

        def keep(name: str, x: Tensor) -> Tensor:
            if name in rescaled:
                meant[name] = x * rescaled[name]
            return x

        def compare(name: str, x: Tensor) -> Tensor:
            if name in rescaled:
                errors.append(relative_error(x, meant[name]))
            return x

        with torch.no_grad():
            wanted = teacher.watched(given, keep)
        got = module.watched(given, compare)
        lost = torch.stack([relative_error(a, b) for a, b in zip(got, wanted, strict=True)]).mean()
        if told.classes is not None:
            lost = lost + told.likely * soft_loss(got[told.classes], [wanted[told.classes]], 1.0)
        return lost + told.blocks * torch.stack(errors).mean() if errors else lost

    record = fit(
        module,
        objective,
        data,
        told.settings(),
        {"light": asdict(told), "inside": inside},
        [teacher],
        directory / _CHECKPOINT if directory else None,
        progress,
        in_units(told.rates),
    )
    return _judged(annotated, module, plain, images, None, record)


def full(
    annotated: Graph,
    plain: Graph,
    learn: Callable[[QuantizedModule, Optimizers], T],
    images: Given,
    labels: Tensor | None = None,
    *,
    scored: int = 0,
    rates: Rates = FULL_RATES,
) -> Trained[T]:
    """Train an annotated graph by any loop.

        full(graph, plain, lambda net, own: train(net, data, settings, optimizers=own), images, labels)

    Args:
        plain: the float graph that answers are compared with where there are no labels.
        learn: trains the module in place, with these optimizers if it likes; running statistics that are
            left in it must be frozen.
        images, labels: held out: (N, ...), one tensor an input, and classes (N,) or (N, H, W) of output
            `scored`.
    """
    module = QuantizedModule(annotated)
    return _judged(annotated, module, plain, images, labels, learn(module, in_units(rates)), scored)


def _judged(
    annotated: Graph,
    module: QuantizedModule,
    plain: Graph,
    images: Given,
    labels: Tensor | None,
    record: T,
    scored: int = 0,
) -> Trained[T]:
    made = module.to_graph()
    before, after = simulated_answers(annotated, images), simulated_answers(made, images)
    if labels is None:
        found = by_answers(flat(float_answers(plain, images)), flat(before), flat(after))
    else:
        found = by_labels(labels, before[scored], after[scored])
    return Trained(made if found.accepted else annotated, found, record)


@torch.no_grad()
def _rescaled(
    module: QuantizedModule, teacher: GraphModule, names: Sequence[str], data: Data, told: Light
) -> dict[str, Tensor]:
    """The factors of equalization at each waist, from the first images of training."""
    wanted: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}

    def into(table: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        if name in names:
            table[name] = x
        return x

    given, _ = data.batches(0, min(_FACTOR_IMAGES, data.count or _FACTOR_IMAGES), None, told.seed)
    teacher.watched(given, lambda name, x: into(wanted, name, x))
    module.watched(given, lambda name, x: into(found, name, x))
    return {name: factors(wanted[name], found[name]) for name in names if name in wanted}
