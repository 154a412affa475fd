"""What a training is told: plain values, checked when they are made. No torch.

The length is one of `steps`, `epochs` and `minutes`. Minutes are time on the processor; they are turned into
steps once, when the training begins, and the checkpoint holds that number: only so can a training that was
killed end with the bytes of one that was not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edgekit.errors import UsageError, did_you_mean

SCHEDULES = ("cosine", "step", "one-cycle", "constant")
OPTIMIZERS = ("adamw", "sgd", "muon")
TRAINABLE = ("all", "head", "norms")
FROZEN = ("no", "statistics", "all")
MATCHED = ("classes", "outputs")
DEVICES = ("auto", "cpu", "cuda")


class Stage(NamedTuple):
    """A part of the training at one resolution.

    share: of the whole, in the unit of the budget: of the minutes, or else of the steps or pictures.
    size: side in pixels, None for the data's own. batch: None for the settings' own.
    """

    share: float
    size: int | None
    batch: int | None = None


@dataclass(frozen=True)
class Settings:
    """One training.

    Args:
        steps, epochs, minutes: how long; exactly one of them. Minutes of processor time, per thread.
        batch: images a step.
        rate: the highest rate of the run, in the optimizer's own scale: 1e-3 suits adamw and muon from
            trained weights, 1e-2 sgd.
        schedule: "cosine", "step" (times `factor` at `milestones`, shares of the run), "one-cycle" or
            "constant".
        warmup: share of the run in which the rate rises from 0; of "one-cycle", in which it rises to `rate`.
        final: what is left of the rate at the end, as a share, of "cosine" and "one-cycle".
        optimizer: "adamw", "sgd" (Nesterov), or "muon": Muon for matrices, adamw for the rest.
        weight_decay: decoupled except for sgd; of weights only, never of biases and norms.
        clip: largest norm of the gradient, 0 for none.
        label_smoothing, mixup: share of the uniform label; alpha of the Beta distribution, 0 for none. With
            several stages both grow in equal steps to the value given, which the last stage has.
        ema: memory of the weights' moving average in steps, 0 for none. The average is what is kept, with
            batch norm recalibrated for it on `recalibrate` images.
        stages: progressive resizing, (share, size) or (share, size, batch) each; none: the data's own size.
        trainable: "all", "head" (the layers whose answer is the output; batch norm elsewhere is frozen) or
            "norms" (scale and shift of normalisations, and biases).
        rates: rate of the first layer as a share of the last one's, geometric in between; 1 for equal rates.
        freeze_batch_norm: "no", "statistics" (the running ones are used and kept) or "all" (its scale and
            shift are kept too).
        temperature, hard_share: of distillation, where there is a teacher; hard_share is the labels' part of
            the loss, 0 where the data has no labels.
        match: what of the teacher is learned: "classes", its softened probabilities over dimension 1, or
            "outputs", all its outputs as they are (relative squared error).
        seed: of the data's order, mixup, dropout.
        threads: of torch, None for as many as it has; sums depend on it, so a resumed run uses the recorded
            number.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        checkpoint_seconds: how often the checkpoint is written.

    Raises:
        UsageError: a value that cannot be right.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = 32
    rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    final: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.02
    clip: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    recalibrate: int = 768
    stages: tuple[Stage, ...] = ()
    trainable: str = "all"
    rates: float = 1.0
    freeze_batch_norm: str = "no"
    temperature: float = 2.0
    hard_share: float = 0.3
    match: str = "classes"
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        lengths = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(lengths) != 1:
            said = " and ".join(lengths) or "no length"
            raise UsageError(f"train: {said}: exactly one of steps, epochs and minutes")
        self._above(0, *lengths, "rate", "temperature", "rates", "factor", "checkpoint_seconds", "batch")
        self._from(0, "weight_decay", "clip", "mixup", "ema", "recalibrate")
        self._share("warmup", "final", "label_smoothing", "hard_share", "momentum")
        for name, known in (
            ("schedule", SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("trainable", TRAINABLE),
            ("freeze_batch_norm", FROZEN),
            ("match", MATCHED),
            ("device", DEVICES),
        ):
            self._one_of(name, known)
        if self.threads is not None:
            self._above(0, "threads")
        if self.stages and abs(sum(stage.share for stage in self.stages) - 1.0) > 1e-6:
            total = sum(stage.share for stage in self.stages)
            raise UsageError(f"train: the shares of the stages add up to {total:g}: they must add up to 1")
        if not all(s.share > 0 and (s.size or 1) > 0 and (s.batch or 1) > 0 for s in self.stages):
            raise UsageError(f"train: stages {self.stages}: share, size and batch above 0")

    def _above(self, low: float, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > low:
                raise UsageError(f"train: {name} {getattr(self, name)}: above {low}")

    def _from(self, low: float, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= low:
                raise UsageError(f"train: {name} {getattr(self, name)}: at least {low}")

    def _share(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"train: {name} {getattr(self, name)}: from 0 to 1")

    def _one_of(self, name: str, known: Collection[str]) -> None:
        given = getattr(self, name)
        if given not in known:
            near = did_you_mean(str(given), known)
            raise UsageError(f"train: there is no {name} '{given}'{near}: {', '.join(known)}")

    @property
    def planned(self) -> tuple[Stage, ...]:
        """The stages with their batches; one stage where none are given."""
        stages = self.stages or (Stage(1.0, None),)
        return tuple(stage._replace(batch=stage.batch or self.batch) for stage in stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"stages": [list(stage) for stage in self.stages]}

    @property
    def identity(self) -> dict[str, Any]:
        """What of the settings decides the weights that come out; threads are recorded by the run."""
        aside = ("threads", "device", "checkpoint_seconds")
        return {key: value for key, value in self.to_dict().items() if key not in aside}
