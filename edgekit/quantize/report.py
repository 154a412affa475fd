"""A choice as the report tells it: every part with its gain on images it was not fitted to, what was taken
back with what it would have cost, and every candidate with its three figures.
"""

from __future__ import annotations

from typing import Any

from edgekit.quantize.judged import Judged
from edgekit.quantize.selection import Choice


def told(choice: Choice) -> dict[str, Any]:
    """The report's entries on the choice.

    Parts that make up the chosen candidate come first, plain min/max at the head, each with its gain over
    those before it. Parts that were taken back follow, each with what the nearest candidate that has it gains
    over the chosen one.
    """
    chosen, plain = choice.chosen, next(iter(choice.chosen.steps().values()))
    over = choice.gains(chosen, plain)
    return {
        "chosen": chosen.name,
        "ranges": chosen.ranges,
        "bias_correction": chosen.bias_correction,
        "judged_images": len(choice.judged[chosen]),
        "sqnr_db": choice.judged[chosen].figures()["pooled"],
        "plain": plain.name,
        "gain_db": over,
        "parts": [*_kept(choice), *_taken_back(choice)],
        "candidates": [
            {
                "candidate": candidate.name,
                "judged_images": len(judged),
                "sqnr_db": judged.figures(),
                "gain_db": choice.gains(candidate, plain),
                "chosen": candidate == chosen,
            }
            for candidate, judged in choice.judged.items()
        ],
    }


def _kept(choice: Choice) -> list[dict[str, Any]]:
    steps = choice.chosen.steps()
    images = min(len(choice.judged[candidate]) for candidate in steps.values())
    judged = [choice.judged[candidate].first(images) for candidate in steps.values()]
    rows = [_row(one, before) for one, before in zip(judged, [judged[0], *judged], strict=False)]
    return [{"part": part, "kept": True, **row} for part, row in zip(steps, rows, strict=True)]


def _taken_back(choice: Choice) -> list[dict[str, Any]]:
    chosen, rows = choice.chosen, []
    kept = chosen.steps()
    tried = [candidate for candidate in choice.judged if candidate != chosen]
    for part in dict.fromkeys(part for candidate in tried for part in candidate.parts):
        if part in kept:
            continue
        having = [candidate for candidate in tried if part in candidate.parts]
        nearest = min(having, key=lambda candidate: len({*candidate.parts} ^ {*chosen.parts}))
        one, other = choice.judged[nearest], choice.judged[chosen]
        images = min(len(one), len(other))
        row = _row(one.first(images), other.first(images))
        rows.append({"part": part, "kept": False, "as": nearest.name, **row})
    return rows


def _row(judged: Judged, before: Judged) -> dict[str, Any]:
    """What a step gains: its pooled SQNR and the difference, and the figures that decide."""
    after, start = judged.figures(), before.figures()
    return {
        "sqnr_db": after["pooled"],
        "gain_db": after["pooled"] - start["pooled"],
        "decides_db": judged.gains(before),
        "judged_images": len(judged),
    }
