"""What was found about each artifact against what its target promises and the recipe asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit.pipeline.job import Facts
from edgekit.pipeline.recipe import Recipe
from edgekit.targets import Promises, Target, get_target
from edgekit.targets.promises import OFF
from edgekit.verify.gates import Evidence, judge

_SHARES = ("min_int8_share", "min_int8_macs_share")


def promises_of(recipe: Recipe, target: Target) -> Promises:
    """The thresholds of a target's gates: its own, those of the recipe in their place.

    How much computes in int8 is shown and not judged where the recipe asks for other precisions itself.
    """
    asked = recipe.verify.asked_of(target.name)
    named = recipe.quantize.float_modules or recipe.quantize.dynamic_modules
    if target.quantized and (named or recipe.mixed is not None):
        asked.update(dict.fromkeys(_SHARES, OFF))
    return target.promises.overridden(asked)


def shared_gates(facts: Facts) -> list[dict[str, Any]]:
    """Gates over several artifacts: of every pair, what the stricter of its two targets asks."""
    if facts.together is None:
        return []
    gates = []
    for pair in facts.together.agreement.pairs:
        alone = replace(facts.together.agreement, pairs=(pair,))
        found = Evidence(pairwise=alone, divergences=facts.together.divergences)
        gates += judge(found, _between(facts.recipe, pair.first, pair.second))
    return [{**gate.as_dict(), "target": "all"} for gate in gates]


def least_agreement(facts: Facts) -> float | None:
    """The strictest agreement in percent that any pair is asked for."""
    pairs = facts.together.agreement.pairs if facts.together is not None else ()
    asked = [_between(facts.recipe, pair.first, pair.second).min_pairwise_agreement for pair in pairs]
    return percent(max((share for share in asked if share is not None), default=None))


def _between(recipe: Recipe, *targets: str) -> Promises:
    name = "min_pairwise_agreement"
    own = [promises_of(recipe, get_target(target)) for target in targets]
    least = max((p.min_pairwise_agreement for p in own if p.min_pairwise_agreement is not None), default=None)
    off = any(name in p.remarks for p in own)
    counts = [p.min_images for p in own]
    return Promises(
        min_pairwise_agreement=None if off else least,
        min_images=None if None in counts else max(count for count in counts if count is not None),
        remarks=frozenset({name} if off else ()),
    )


def percent(share: float | None) -> float | None:
    """A share of 1 as a share of 100."""
    return None if share is None else 100.0 * share
