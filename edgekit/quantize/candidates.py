"""What a calibration may consist of: whole pipelines, of which `selection` takes the one that images it did
not see speak for.

Equalization and least-squares ranges pay off, or cost, together with biases that are fitted to them, so no
part is judged alone. Ranges that clip need enough images to show what is clipped: on few, whose folds hold a
handful each, they win by chance and lose by several dB on images to come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

FEWEST_TO_CLIP = 17  # images; with fewer, min/max is the only range method
FEWEST_TO_CHOOSE = 8  # images; with fewer, the plainest candidate is taken


@dataclass(frozen=True)
class Candidate:
    """A range method, and which parts go with it."""

    ranges: str = "minmax"
    even_outliers: bool = False
    bias_correction: bool = False
    equalize: bool = False
    weight_mse: bool = False
    gptq: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The range method and what goes with it, in the order in which gains are told."""
        return (self.ranges, *(name for name in _PARTS if getattr(self, name)))

    @property
    def name(self) -> str:
        return " + ".join(part.replace("_", " ") for part in self.parts)

    def steps(self) -> dict[str, Candidate]:
        """From plain min/max to this one, a part more each time: part -> what has it and all before it."""
        found = {"minmax": Candidate()}
        latest = found["minmax"]
        for part in (name for name in ("even_outliers", "ranges", *_PARTS[1:])):
            more: dict[str, Any] = {part: getattr(self, part)}
            following = replace(latest, **more)
            if following != latest:
                found[self.ranges if part == "ranges" else part] = latest = following
        return found


_PARTS = ("even_outliers", "bias_correction", "equalize", "weight_mse", "gptq")


@dataclass(frozen=True)
class Asked:
    """The parts a user decides; None leaves one to the images, as "auto" does the ranges."""

    ranges: str = "auto"
    bias_correction: bool | None = None
    equalize: bool | None = None
    weight_mse: bool = False
    gptq: bool = False


def candidates(asked: Asked, images: int) -> list[Candidate]:
    """Those to choose from, the plainest first: it is what the others have to beat."""
    open_to = ["minmax", "trim", "mse"] if images >= FEWEST_TO_CLIP else ["minmax"]
    methods = open_to if asked.ranges == "auto" else [asked.ranges]
    balanced = [m for m in methods if m != "trim" or len(methods) == 1]
    combinations = [(m, bias, False) for bias in (False, True) for m in methods]
    combinations += [(m, bias, True) for bias in (False, True) for m in balanced]
    found = [
        Candidate(m, False, bias, equal, asked.weight_mse, asked.gptq)
        for m, bias, equal in combinations
        if asked.bias_correction in (None, bias) and asked.equalize in (None, equal)
    ]
    # where both are free, channels are equalized with biases fitted to that, or not at all
    if asked.equalize is None and asked.bias_correction is None:
        found = [c for c in found if c.bias_correction or not c.equalize]
    return found if images >= FEWEST_TO_CHOOSE else found[:1]
