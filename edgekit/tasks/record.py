"""What a comparison with the reference found: Drift, an error for every output, the changed answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Caption = tuple[str, str]  # words, and "plain", "right" or "wrong"


@dataclass(frozen=True)
class Output:
    """One output of a model: its name, what belongs to one image, and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class OutputError:
    """One output against the reference's, in the graph's layout.

    sqnr_db: pooled over all images; median and 5th percentile over single images. max_error: largest
    difference, peak: largest number of the reference. equal_share: numbers that are equal, given for an
    output of whole numbers (indices, classes), whose distance means nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sqnr_db: float
    sqnr_median_db: float
    sqnr_p5_db: float
    max_error: float
    peak: float
    equal_share: float | None = None


@dataclass(frozen=True)
class Flip:
    """One image on which two classifiers disagree."""

    index: int
    label: int | None
    reference: int
    reference_probability: float
    artifact: int
    artifact_probability: float

    @property
    def rank(self) -> float:
        """Those the reference was surest about are shown first."""
        return self.reference_probability

    def row(self, names: Sequence[str] | None) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "index": self.index,
            "label": None if self.label is None else _name(self.label, names),
            "float_said": _name(self.reference, names),
            "float_p": self.reference_probability,
            "int8_said": _name(self.artifact, names),
            "int8_p": self.artifact_probability,
        }

    def captions(self, names: Sequence[str] | None) -> list[Caption]:
        """What stands under the picture."""

        def tone(said: int) -> str:
            return "plain" if self.label is None else "right" if said == self.label else "wrong"

        row = self.row(names)
        return [
            (f"#{self.index}" if self.label is None else f"label {row['label']}", "plain"),
            (f"float {row['float_said']} {self.reference_probability:.2f}", tone(self.reference)),
            (f"int8 {row['int8_said']} {self.artifact_probability:.2f}", tone(self.artifact)),
        ]


@dataclass(frozen=True)
class Change:
    """One image whose answer changed, in words of the task. rank: the greatest changes are shown first."""

    index: int
    reference: str
    artifact: str
    rank: float

    def row(self, _names: Sequence[str] | None) -> dict[str, Any]:
        """As report.json has it."""
        said = {"float_said": self.reference, "int8_said": self.artifact}
        return {"index": self.index, "label": None, "float_p": None, "int8_p": None} | said

    def captions(self, _names: Sequence[str] | None) -> list[Caption]:
        """What stands under the picture."""
        return [(f"#{self.index}", "plain"), (self.reference, "plain"), (self.artifact, "plain")]


@dataclass(frozen=True)
class Drift:
    """How far an artifact's answers are from the reference's on the same images.

    metric "top1" or "miou": the reference's and the artifact's score in percent, `drop` and its interval in
    points. "agreement" (no labels): reference is 100, artifact the share of `answers` that are the same.
    "sqnr" (tensors): no scores, only what the outputs say. p_value is None without labels.
    sqnr_db, sqnr_median_db, sqnr_p5_db and cosine: the lowest over the outputs.
    n: images compared; `lost` and `gained` of them, and those that `flipped`. answers: what agreement counts.
    """

    metric: str
    reference: float | None
    artifact: float | None
    drop: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    agreement: float | None
    sqnr_db: float
    sqnr_median_db: float
    sqnr_p5_db: float
    cosine: float
    n: int
    lost: int
    gained: int
    flipped: tuple[Flip | Change, ...]
    outputs: tuple[OutputError, ...] = ()
    task: str = "classification"
    answers: str = "answers"
    figures: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return asdict(self)


def _name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names is not None and index < len(names) else f"class {index}"
