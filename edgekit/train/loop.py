"""The one training loop: a module, an objective, data and settings in, the trained module and a record out.

The rooms beside it hand over their objectives. A step depends on the checkpoint's content and on its number
alone: the batch and all random numbers follow from (seed, step). A training that was killed at any moment
therefore ends with the same bytes as one that was not, with as many threads as it began with.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from edgekit.errors import TrainError, UsageError
from edgekit.train import layers
from edgekit.train.checkpoint import load_checkpoint, restore, save_checkpoint, snapshot, weights_sha256
from edgekit.train.data import Data, Inputs
from edgekit.train.optimizers import make_optimizers, set_rates
from edgekit.train.schedules import Plan, plan_each, plan_steps, rate_at
from edgekit.train.settings import Settings, Stage

# (inputs, labels, how strong regularisation is, 0..1) -> scalar
Objective = Callable[[Inputs, torch.Tensor | None, float], torch.Tensor]
Progress = Callable[[int, int], None]
# a module -> its optimizers; each group has its highest rate as "peak"
Optimizers = Callable[[nn.Module], list[torch.optim.Optimizer]]

_TIMED_STEPS = 2  # of each stage, after one that is not counted, when minutes become steps
_KEPT_LOSSES = 100


@dataclass(frozen=True)
class TrainRecord:
    """What a training did.

    steps: how many. stages: (size in pixels or None, batch, steps) each. threads, device: what it ran on.
    seconds: processor time per thread, over all attempts; wall time on a GPU. losses: means over up to a
    hundred equal parts of the run. weights: sha256 of the parameters and buffers that came out.
    """

    steps: int
    stages: tuple[tuple[int | None, int, int], ...]
    threads: int
    device: str
    seconds: float
    losses: tuple[float, ...]
    weights: str


def fit(
    module: nn.Module,
    objective: Objective,
    data: Data,
    settings: Settings,
    identity: Mapping[str, Any],
    teachers: Sequence[nn.Module] = (),
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    optimizers: Optimizers | None = None,
) -> TrainRecord:
    """Lower any objective by the settings' optimizer and schedule; `train` says the rest.

    Args:
        objective: computes the loss from the module it closes over. identity: what it depends on, as JSON.
        teachers: modules that it asks besides: put on the device and into eval mode.
        optimizers: makes those of the module in the settings' place; what their groups hold is what learns.
    """
    device = chosen_device(settings)
    whole = {
        **identity,
        "settings": settings.identity,
        "data": dict(data.identity),
        "weights": weights_sha256(module),
        "teachers": [weights_sha256(teacher) for teacher in teachers],
    }
    state = load_checkpoint(checkpoint, whole) if checkpoint else None
    threads = state["threads"] if state else settings.threads or torch.get_num_threads()
    with _computing(device, threads), _placed([module, *teachers], device):
        for teacher in teachers:
            teacher.eval()
        if optimizers is None:
            learning = layers.trained(module, settings.trainable, settings.freeze_batch_norm)
        else:
            learning = _held(module, optimizers(module))
        with layers.only(module, learning):
            run = _Run(module, objective, data, settings, device, learning, optimizers)
            if state:
                run.resume(state)
            else:
                run.begin(teachers)
            run.go(checkpoint, {"identity": whole, "threads": threads}, progress)
            run.finish()
            run.lay_out(False, teachers)
    stages = zip(run.plan.stages, run.plan.steps, strict=True)
    return TrainRecord(
        run.plan.total,
        tuple((stage.size, stage.batch or settings.batch, steps) for stage, steps in stages),
        threads,
        device.type,
        run.seconds,
        _means(run.losses),
        weights_sha256(module),
    )


def chosen_device(settings: Settings) -> torch.device:
    """Where a training runs. Raises: UsageError for a GPU that is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("train: no GPU that torch can use: device 'cpu' or 'auto'")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


class _Run:
    """A training in progress: all that changes from step to step."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Data,
        settings: Settings,
        device: torch.device,
        learning: dict[str, nn.Parameter],
        optimizers: Optimizers | None = None,
    ) -> None:
        self.make = optimizers or (lambda module: make_optimizers(module, learning, settings))
        self.module, self.objective, self.data, self.settings = module, objective, data, settings
        self.device, self.learning = device, learning
        self.optimizers = self.make(module)
        self.average: list[torch.Tensor] = []
        self.plan = Plan((), ())
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.channels_last = False

    def lay_out(self, channels_last: bool, teachers: Sequence[nn.Module]) -> None:
        """Channels last in memory is a quarter faster on a CPU."""
        self.channels_last = channels_last
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for module in (self.module, *teachers):
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=layout)

    def begin(self, teachers: Sequence[nn.Module]) -> None:
        """Choose the layout and the number of steps by trial; the module is as before afterwards."""
        before = snapshot(self.module)
        stages = self.settings.planned
        self._train_mode()
        self.lay_out(True, teachers)
        try:
            self._objective_at(0, stages[0], 1.0).backward()
        except RuntimeError as error:
            if "view" not in str(error):  # a module that views what is laid out in rows of channels
                raise
            self.lay_out(False, teachers)
        self.plan = self._planned(stages)
        restore(self.module, before)
        self.optimizers = self.make(self.module)
        for parameter in self.learning.values():
            parameter.grad = None
        if self.settings.ema > 0:
            self.average = [parameter.detach().clone() for parameter in self.learning.values()]

    def _planned(self, stages: Sequence[Stage]) -> Plan:
        settings, count = self.settings, self.data.count
        if settings.steps is not None:
            return plan_steps(stages, settings.steps)
        if settings.epochs is not None:
            if count is None:
                raise UsageError("train: epochs of a set that never ends: steps or minutes")
            pictures = settings.epochs * count
            return plan_each(stages, [s.share * pictures / (s.batch or 1) for s in stages])
        assert settings.minutes is not None
        began, costs = self._clock(), []
        for stage in stages:
            self.data.batches(0, stage.batch or 1, stage.size, settings.seed)  # pictures that must be made
            self._advance(0, stage, 0.0, 1.0)
            start = self._clock()
            for step in range(1, 1 + _TIMED_STEPS):
                self._advance(step, stage, 0.0, 1.0)
            costs.append((self._clock() - start) / _TIMED_STEPS)
        left = settings.minutes * 60.0 - (self._clock() - began)
        return plan_each(stages, [s.share * left / cost for s, cost in zip(stages, costs, strict=True)])

    def _clock(self) -> float:
        """Seconds: of the processor, per thread; of the wall for a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time() / torch.get_num_threads()

    def state(self) -> dict[str, Any]:
        return {
            "plan": [[*stage, steps] for stage, steps in zip(self.plan.stages, self.plan.steps, strict=True)],
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "channels_last": self.channels_last,
            "module": snapshot(self.module),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        rows = state["plan"]
        self.plan = Plan(tuple(Stage(*row[:3]) for row in rows), tuple(row[3] for row in rows))
        self.step, self.seconds, self.losses = state["step"], state["seconds"], list(state["losses"])
        self.lay_out(state["channels_last"], [])
        restore(self.module, state["module"])
        self.average = [tensor.to(self.device) for tensor in state["average"]]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def go(self, checkpoint: Path | None, whose: Mapping[str, Any], progress: Progress | None) -> None:
        """The steps that are left, with the checkpoint written now, now and then, and at the end."""
        total, saved, written = self.plan.total, time.monotonic(), -1
        self._train_mode()
        while True:
            done = self.step >= total
            late = time.monotonic() - saved >= self.settings.checkpoint_seconds
            if checkpoint and self.step != written and (done or late or written < 0):
                save_checkpoint(checkpoint, {**whose, **self.state()})
                saved, written = time.monotonic(), self.step
            if progress:
                share = 1.0 if done else self.plan.progress(self.step)
                progress(min(total, round(share * total)), total)
            if done:
                return
            began = self._clock()
            index = self.plan.stage(self.step)
            strength = (index + 1) / len(self.plan.stages)
            reached = self.plan.progress(self.step)
            self.losses.append(self._advance(self.step, self.plan.stages[index], reached, strength))
            self.step += 1
            self.seconds += self._clock() - began

    def _train_mode(self) -> None:
        layers.training_mode(self.module, self.settings.trainable, self.settings.freeze_batch_norm)

    def _batch(self, step: int, stage: Stage) -> tuple[Inputs, torch.Tensor | None]:
        settings = self.settings
        given, labels = self.data.batches(step, stage.batch or settings.batch, stage.size, settings.seed)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        inputs = tuple(
            array.to(self.device).contiguous(
                memory_format=layout if array.ndim == 4 else torch.contiguous_format
            )
            for array in given
        )
        return inputs, None if labels is None else labels.to(self.device)

    def _objective_at(self, step: int, stage: Stage, strength: float) -> torch.Tensor:
        inputs, labels = self._batch(step, stage)
        torch.manual_seed(self.settings.seed * 1_000_003 + step)  # mixup, dropout, stochastic depth
        return self.objective(inputs, labels, strength)

    def _advance(self, step: int, stage: Stage, reached: float, strength: float) -> float:
        """One step of every optimizer; returns the loss before it."""
        settings = self.settings
        set_rates(self.optimizers, rate_at(reached, settings))
        loss = self._objective_at(step, stage, strength)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainError(f"train: the loss is {value} at step {step}: a lower rate, or clip")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip > 0:
            nn.utils.clip_grad_norm_(self.learning.values(), settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average:
            weights: list[Any] = [parameter.detach() for parameter in self.learning.values()]
            average: list[Any] = list(self.average)
            get_ema_multi_avg_fn(ema_decay(step, settings.ema))(average, weights, step)
        return value

    def finish(self) -> None:
        """The average becomes the weights, with batch norm's statistics taken for it."""
        if self.average:
            with torch.no_grad():
                for parameter, mean in zip(self.learning.values(), self.average, strict=True):
                    parameter.copy_(mean)
            frozen = self.settings.freeze_batch_norm != "no" or self.settings.trainable == "head"
            if not frozen and self.settings.recalibrate and layers.batch_norms(self.module):
                torch.manual_seed(self.settings.seed)
                layers.recalibrate(self.module, self._after())
        self.module.eval()
        for parameter in self.learning.values():
            parameter.grad = None

    def _after(self) -> Iterator[Inputs]:
        """Batches that follow the last step, at its size."""
        stage, total = self.plan.stages[-1], self.plan.total
        for step in range(math.ceil(self.settings.recalibrate / (stage.batch or 1))):
            yield self._batch(total + step, stage)[0]


def _held(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, nn.Parameter]:
    """The parameters that optimizers hold, by name."""
    held = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    return {name: parameter for name, parameter in module.named_parameters() if id(parameter) in held}


def ema_decay(step: int, memory: float) -> float:
    """What the average keeps of itself after step `step`: little at first, 1 - 1/memory in the long run."""
    return min(1.0 - 1.0 / max(memory, 1.0), (step + 1) / (step + 11))


def _means(losses: Sequence[float]) -> tuple[float, ...]:
    parts = min(_KEPT_LOSSES, len(losses))
    edges = [round(i * len(losses) / parts) for i in range(parts + 1)] if parts else []
    return tuple(sum(losses[a:b]) / (b - a) for a, b in itertools.pairwise(edges))


@contextmanager
def _computing(device: torch.device, threads: int) -> Iterator[None]:
    """So many threads, full precision, and the caller's random numbers as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    cuda = device.type == "cuda"
    flags = torch.backends.cudnn.flags
    try:
        with torch.random.fork_rng(devices=[device] if cuda else []):
            if not cuda:
                yield
            else:
                with flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                    yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _placed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """The modules on `device`, and back where they were; teachers keep their mode."""
    homes = [next((p.device for p in module.parameters()), device) for module in modules]
    modes = [module.training for module in modules]
    for module in modules:
        module.to(device)
    try:
        yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            module.to(home)
        for teacher, mode in zip(modules[1:], modes[1:], strict=True):
            teacher.train(mode)
