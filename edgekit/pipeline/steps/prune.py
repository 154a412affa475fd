"""[prune]: channels removed until a budget is met, the layers behind them fitted in closed form.

A budget in milliseconds is met by measured files: predicted widths are built, timed, and corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.graph.ir import Graph
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import BUDGETS, Prune
from edgekit.pipeline.steps.clock import TARGET, Clock
from edgekit.pipeline.steps.step import Context, Made, Step
from edgekit.prune import prune_graph


def apply(graph: Graph, settings: Prune, context: Context) -> Made:
    """Raises: PruneError for a budget that no form meets; UsageError for a board that is not there."""
    budgets: dict[str, Any] = {name: getattr(settings, name) for name in BUDGETS}
    clock = Clock(context, settings.device)
    timed = settings.latency_ms is not None
    images = context.images() if settings.score in _LOOKING or settings.refit else None
    done = prune_graph(
        graph,
        **budgets,
        dead=settings.dead,
        score=settings.score,
        scope=settings.scope,
        rounds=settings.rounds,
        refit=settings.refit,
        protect=settings.protect,
        images=images,
        cost=clock.cost() if timed else None,
        measure=clock.measured_ms if timed else None,
        seed=context.recipe.seed,
    )
    return done.graph, _record(done.record, settings, 0 if images is None else len(images[0]))


def depends(settings: Prune, recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    found: dict[str, Any] = {"images": job.calibration.identity, "seed": recipe.seed}
    if settings.latency_ms is not None:
        found["threads of the runtime"] = recipe.device.threads
    return found


PRUNE = Step("prune", apply, depends)
_LOOKING = ("taylor", "obs")


def _record(told: Mapping[str, Any], settings: Prune, images: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "changed": [
            {"module": group["name"], "what": f"width {group['units']} to {group['kept']}"}
            for group in told["groups"]
            if group["kept"] < group["units"]
        ],
        "left": [
            {"module": closed["name"], "reason": f"{closed['channels']} channels: {closed['reason']}"}
            for closed in told["closed"]
        ],
        "notes": [],
    }
    if "dead" in told:
        dead = told["dead"]
        record["notes"].append(f"{dead} channels were zero for every input; without them nothing changes.")
    if budget := told.get("budget"):
        record["budget"] = {key: value for key, value in budget.items() if value is not None}
        record["notes"].append(_said(budget, settings))
        if "why" in budget:
            record["notes"].append(f"{budget['why']}.")
    if told.get("refitted"):
        record["fitted"] = images
        record["notes"].append(
            f"{len(told['refitted'])} layers behind a cut were fitted to what the original made there."
        )
    return record


_WORDS = {"keep": "channels that can go", "macs": "MACs", "params": "parameters"}


def _said(budget: Mapping[str, Any], settings: Prune) -> str:
    """What was asked for and what it became."""
    if budget["name"] != "latency_ms":
        what, got, whole = _WORDS[budget["name"]], budget["predicted"], budget["original"]
        return f"Asked for {budget['target'] / whole:.3g} of the {what}: {got / whole:.3f} are left."
    on = f"{TARGET} on {settings.device}"
    said = f"Asked for {budget['target']:.4g} ms of {on}, where the original has {budget['original']:.4g}: "
    said += f"predicted {budget['predicted']:.4g} ms"
    if (got := budget.get("measured")) is None:
        return f"{said}."
    off, tries = 100 * (got / budget["target"] - 1), len(budget["tries"])
    return f"{said}, measured {got:.4g} ms ({off:+.1f} % of what was asked) after {tries} built files."
