"""Post-training quantization: a float graph and images in, an annotated graph and a measured report out.

Plain min/max stays unless another pipeline wins on images that it was not fitted to; see `selection`.

Enters: a graph after the float passes, calibration images, (N, ...) per graph input. Leaves: a copy of the
graph whose activations and weights carry QuantParams, and a report of what each part gains on images it did
not see.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph
from edgekit.quantize.candidates import FEWEST_TO_CHOOSE, Asked, candidates
from edgekit.quantize.choose import choose
from edgekit.quantize.fit import Fitter
from edgekit.quantize.images import Given, Images
from edgekit.quantize.observers import observe
from edgekit.quantize.outliers import told_apart
from edgekit.quantize.report import told
from edgekit.quantize.selection import Choice, Selection

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeSettings:
    """What the quantization stage does. Images decide on every part left at None, and on ranges of "auto".

    Args:
        profile: "fast" judges, and fits biases, on fewer images.
        activations: "int8", or "int16", whose 65,536 steps leave room for twice the calibrated range; every
            other part is fitted to that.
        calibration: at most this many images are used.
        ranges: "minmax", "trim", "tight", "mse" (see `ranges`), or "auto".
        equalize: whether channels are rescaled against each other; False leaves outliers alone as well.
        weight_mse, bias_correction, gptq: whether the part is done. What concerns the rounding of
            weights (weight_mse, gptq) is done when asked for: at 8 bits it moves less than the noise between
            equally good roundings, and gptq takes as long as a quarter of all the rest.
    """

    profile: Literal["fast", "thorough"] = "fast"
    activations: Literal["int8", "int16"] = "int8"
    calibration: int = 128
    ranges: Literal["minmax", "trim", "tight", "mse", "auto"] | None = None
    equalize: bool | None = None
    weight_mse: bool | None = None
    bias_correction: bool | None = None
    gptq: bool | None = None

    def __post_init__(self) -> None:
        for name, allowed in {
            "profile": ("fast", "thorough"),
            "activations": ("int8", "int16"),
            "ranges": (None, "minmax", "trim", "tight", "mse", "auto"),
        }.items():
            if getattr(self, name) not in allowed:
                raise QuantizationError(
                    f"[quantize] {name} = {getattr(self, name)!r}: one of "
                    f"{', '.join(map(str, allowed))} is needed"
                )
        if self.calibration < 1:
            raise QuantizationError(
                f"[quantize] calibration = {self.calibration}: at least 1 image is needed"
            )


@dataclass
class QuantizeResult:
    """means: what `placement.fit_biases` gives channels back, over the first images of `order`."""

    graph: Graph
    report: dict[str, Any]
    means: dict[str, torch.Tensor]
    order: torch.Tensor  # (N,): which calibration images the rows of `means` belong to


_SAMPLES = {"fast": 256, "thorough": 512}  # values kept per image and tensor for the mse ranges
_SAMPLES_IN_ALL, _FEWEST_SAMPLES = 1 << 17, 32  # beyond, an image gives fewer
CORRECTION_IMAGES = {"fast": 32, "thorough": 64}
_FOLD_CORRECTION_IMAGES = {"fast": 16, "thorough": 24}
_JUDGED_IMAGES = {"fast": 64, "thorough": 96}


def resolved(settings: QuantizeSettings) -> QuantizeSettings:
    """What is not left to the images, filled in."""
    return replace(
        settings,
        ranges=settings.ranges or ("trim" if settings.activations == "int16" else "auto"),
        weight_mse=bool(settings.weight_mse),
        gptq=bool(settings.gptq),
    )


def quantize(
    graph: Graph,
    images: Given,
    settings: QuantizeSettings | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Choose parameters for every tensor of `graph` (left as it is) from calibration images.

    Args:
        graph: float, after the passes.
        images: (N, ...) float32, preprocessed as the model expects: a tensor, one per graph input where
            there are several, or in its place anything with a length that gives rows for indices.
        progress: called with one line as each step starts.
    Returns: an annotated copy, and a report with what each part gains on images it did not see.
    Raises: QuantizationError for NaN or infinity in images, weights or activations.
    """
    settings, tell = resolved(settings or QuantizeSettings()), progress or (lambda _line: None)
    graph, clock = graph.copy(), _Clock()
    given = Images(graph, images).rows(slice(settings.calibration))
    tell(f"observe {len(given)} calibration images")
    fitter = observed(graph, given, settings)
    clock.done("observe")
    choice = chosen(fitter, settings, tell)
    clock.done("select")
    tell(f"fit {choice.chosen.name} to all images")
    order = fitter.outvoted_last(torch.arange(len(given)))
    corrections = CORRECTION_IMAGES[settings.profile]
    seen = fitter.fit(choice.chosen, order, corrections)
    clock.done("fit")
    report = {
        "settings": asdict(settings),
        "images": len(given),
        **told(choice),
        "seconds": clock.seconds,
    }
    corrected = fitter.corrected(order)[:corrections]
    means = {node.output.name: rows[:corrections].clone() for node, rows in seen.mean.items()}
    return QuantizeResult(graph, report, means, given.order[corrected])


def observed(graph: Graph, images: Images, settings: QuantizeSettings) -> Fitter:
    """What fits candidates to the graph, from one pass over the images; settings are resolved."""
    samples = _SAMPLES[settings.profile] if settings.ranges in ("mse", "auto") else 0
    samples = min(samples, max(_FEWEST_SAMPLES, _SAMPLES_IN_ALL // len(images)))
    # a fold takes a quarter of the first images away, and strange ones go last
    means = 2 * CORRECTION_IMAGES[settings.profile]
    seen = observe(graph, images, samples, channels=told_apart(graph), means=means)
    choices = choose(graph, seen, settings.activations)
    return Fitter(graph, images, seen, settings.activations, choices)


def chosen(fitter: Fitter, settings: QuantizeSettings, progress: Progress) -> Choice:
    """What the images speak for, of what resolved settings leave open."""
    asked = Asked(
        str(settings.ranges),
        settings.bias_correction,
        settings.equalize,
        bool(settings.weight_mse),
        bool(settings.gptq),
    )
    corrections, judged = _FOLD_CORRECTION_IMAGES[settings.profile], _JUDGED_IMAGES[settings.profile]
    selection = Selection(fitter, corrections, judged, progress)
    enough = len(fitter.images) >= FEWEST_TO_CHOOSE
    return selection.choose(
        candidates(asked, len(fitter.images)), outliers=enough and asked.equalize is not False
    )


class _Clock:
    """Seconds of each step, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._start = now - self._start, now
