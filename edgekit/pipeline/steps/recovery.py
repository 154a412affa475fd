"""Recovery after surgery: the changed graph learns the original's answers again, on the training split.

Pictures that a step judges by are not learned from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgekit import passes
from edgekit.graph.ir import Graph
from edgekit.graph.module import GraphModule, as_module
from edgekit.pipeline.answers import task_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import LENGTHS, Lite, Train
from edgekit.pipeline.steps.judged import judged_by
from edgekit.pipeline.steps.step import Context
from edgekit.pipeline.steps.train import lesson, training_data
from edgekit.train.loop import chosen_device
from edgekit.train.recovery import RECIPE, Recovery, recover


@dataclass
class Recoverer:
    """What recovers the graphs of one step, one after the other; `done` holds a record of each."""

    settings: Lite
    context: Context
    done: list[Recovery] = field(default_factory=list)

    def __call__(self, graph: Graph, share: float = 1.0) -> Graph:
        """`graph`, trained. share: of the minutes that are asked for."""
        context, minutes = self.context, self.settings.recover
        data, told, _ = lesson(_asked(), context, judged_by(context.job))
        module = as_module(graph)
        done = recover(
            module,
            self._original(),
            data,
            told,
            minutes=None if minutes is None else share * minutes,
            steps=(self.settings.recover_steps or None) if minutes is None else None,  # type: ignore[arg-type]
            directory=context.work / f"recovery-{len(self.done)}",
            progress=context.line.advance,
        )
        self.done.append(done)
        return module.to_graph()

    def _original(self) -> GraphModule:
        """The teacher, with nothing left in it that only training needs."""
        folded = self.context.original.copy()
        passes.optimize(folded)
        return as_module(folded).eval()

    def record(self) -> dict[str, Any]:
        """What was done, for the record of the step."""
        if not self.done:
            return {}
        last = self.done[-1]
        found: dict[str, Any] = {
            "recovered": {
                "steps": [sum(one.steps[0] for one in self.done), sum(one.steps[1] for one in self.done)],
                "seconds": sum(one.seconds for one in self.done),
                "blocks": list(last.blocks),
            },
            "losses": list(last.whole.losses),
        }
        if len(self.done) == 1 and self.settings.recover is not None:
            found["settings"] = {"recover": None, "recover_steps": list(last.steps)}
        return found

    def note(self) -> str:
        by_block, whole = (sum(one.steps[part] for one in self.done) for part in (0, 1))
        minutes = sum(one.seconds for one in self.done) / 60
        return (
            f"Recovered from the original's answers: {by_block} steps block by block "
            f"({len(self.done[-1].blocks)} blocks), {whole} of the whole, {minutes:.1f} minutes."
        )


def depends(recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    """What a recovery's result depends on besides the settings, see `Step`."""
    task = task_of(recipe, job, original)
    asked = _asked()
    return {
        "data": dict(training_data(asked, job, task, judged_by(job)).identity),
        "recipe": {key: value for key, value in asdict(asked).items() if key != "minutes"},
        "task": [task.name, task.scored],
        "device": chosen_device(asked).type,
    }


def _asked() -> Train:
    """The recipe of recovery as settings of a training."""
    told = {name: value for name, value in RECIPE.to_dict().items() if name not in LENGTHS}
    return replace(Train(minutes=1.0), **told)
