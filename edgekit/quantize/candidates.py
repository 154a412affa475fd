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
    """A range method, and which parts follow it."""

    ranges: str = "minmax"
    bias_correction: bool = False
    equalize: bool = False
    weight_mse: bool = False
    gptq: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The range method and what comes on top of it, in the order in which gains are told."""
        names = ("bias_correction", "equalize", "weight_mse", "gptq")
        return (self.ranges, *(name for name in names if getattr(self, name)))

    @property
    def name(self) -> str:
        return " + ".join(part.replace("_", " ") for part in self.parts)

    def steps(self) -> list[Candidate]:
        """From plain min/max to this one, a part more each time."""
        found = [Candidate(), Candidate(self.ranges)]
        for part in self.parts[1:]:
            more: dict[str, Any] = {part: True}
            found.append(replace(found[-1], **more))
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Asked:
    """The parts a user decides; None leaves one to the images. ranges: "auto" likewise."""

    ranges: str = "auto"
    bias_correction: bool | None = None
    equalize: bool | None = None
    weight_mse: bool | None = None
    gptq: bool | None = None


def candidates(asked: Asked, images: int) -> list[Candidate]:
    """Those to choose from, the plainest first: it is what the others have to beat."""
    open_to = ["minmax", "trim", "mse"] if images >= FEWEST_TO_CLIP else ["minmax"]
    methods = open_to if asked.ranges == "auto" else [asked.ranges]
    balanced = [m for m in methods if m != "trim" or len(methods) == 1]
    combinations = [(m, bias, False) for bias in (False, True) for m in methods]
    combinations += [(m, bias, True) for bias in (False, True) for m in balanced]
    found = [
        Candidate(m, bias, equal, bool(asked.weight_mse), bool(asked.gptq))
        for m, bias, equal in combinations
        if asked.bias_correction in (None, bias) and asked.equalize in (None, equal)
    ]
    # where both are free, channels are equalized with biases fitted to that, or not at all
    if asked.equalize is None and asked.bias_correction is None:
        found = [c for c in found if c.bias_correction or not c.equalize]
    return found if images >= FEWEST_TO_CHOOSE else found[:1]


def rounded(candidate: Candidate, asked: Asked) -> Candidate | None:
    """The same with its weights rounded for each other, where that is open."""
    return replace(candidate, gptq=True) if asked.gptq is None else None
