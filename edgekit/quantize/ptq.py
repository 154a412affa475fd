"""Post-training quantization: a float graph and images in, an annotated graph and a measured report out.

Enters: a graph after the float passes, calibration images (N, C, H, W). Leaves: a copy of the graph whose
activations and weights carry QuantParams, and a report of what each part of the pipeline gained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from edgekit.errors import QuantizationError
from edgekit.ir import Graph
from edgekit.quantize import qparams, ranges, rounding
from edgekit.quantize.bias_correction import adjust
from edgekit.quantize.equalize import equalize
from edgekit.quantize.observers import Observations, observe, trim_count
from edgekit.quantize.simulate import simulate, sqnr_db

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeSettings:
    """What the quantization stage does. `profile` fills in every part left at None.

    Args:
        profile: "fast" (seconds) or "thorough" (under a minute).
        calibration: at most this many images are used.
        ranges: "minmax", "trim", "tight", "mse" (see `ranges`), or "auto": scored on held-out calibration
            images.
    """

    profile: Literal["fast", "thorough"] = "fast"
    calibration: int = 128
    ranges: Literal["minmax", "trim", "tight", "mse", "auto"] | None = None
    equalize: bool | None = None
    weight_mse: bool | None = None
    bias_correction: bool | None = None
    gptq: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in {
            "profile": ("fast", "thorough"),
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
    graph: Graph
    report: dict[str, Any]


_PROFILES: dict[str, dict[str, Any]] = {
    "fast": {"ranges": "auto", "equalize": True, "weight_mse": True, "bias_correction": True, "gptq": False},
    "thorough": {
        "ranges": "auto",
        "equalize": True,
        "weight_mse": True,
        "bias_correction": True,
        "gptq": True,
    },
}
_CANDIDATES = {"fast": ("trim", "tight"), "thorough": ("trim", "tight", "mse", "both")}
_TIGHTER_MUST_GAIN = 0.2  # dB: clipping harms unusual images, which few held-out images show
_DB_LIMIT = 200.0  # stands for exact: JSON has no infinity
_SAMPLES = 512  # values kept per image and tensor for the mse ranges
_CORRECTION_IMAGES = {"fast": 32, "thorough": 64}
_HELD_OUT = {"fast": 8, "thorough": 24}


def resolved(settings: QuantizeSettings) -> QuantizeSettings:
    """Every part on or off: what was not chosen is filled in by the profile."""
    chosen = {k: v for k, v in _PROFILES[settings.profile].items() if getattr(settings, k) is None}
    return replace(settings, **chosen)


def quantize(
    graph: Graph,
    images: torch.Tensor,
    settings: QuantizeSettings | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Choose parameters for every tensor of `graph` (left as it is) from calibration images.

    Args:
        graph: float, after the passes.
        images: (N, C, H, W) float32, preprocessed as the model expects.
        progress: called with one line as each part starts.
    Returns: an annotated copy, and a report with each part's seconds and gain in dB.
    Raises: QuantizationError for NaN or infinity in images, weights or activations.
    """
    run = _Run(
        graph.copy(), images, resolved(settings or QuantizeSettings()), progress or (lambda _line: None)
    )
    run.all_parts()
    return QuantizeResult(run.graph, run.report())


def split(seen: Observations, held: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to fit to and rows to score on (the same where images are too few to hold any out).

    The strangest images are fitted to, where they can be outvoted, never scored on, and come last, so that
    parts which look at fewer images do not see them.
    """
    order = seen.strangeness().argsort(stable=True)
    ordinary = order[: len(order) - trim_count(len(order))].sort().values
    strange = order[len(ordinary) :]
    if held == 0:
        return torch.cat([ordinary, strange]), ordinary
    return torch.cat([ordinary[:-held], strange]), ordinary[-held:]


class _Run:
    """One quantization: the graph, what was seen of it, and the parts done so far."""

    def __init__(
        self, graph: Graph, images: torch.Tensor, settings: QuantizeSettings, progress: Progress
    ) -> None:
        self.graph, self.settings, self.progress = graph, settings, progress
        images = images[: settings.calibration].float()
        self.parts: list[dict[str, Any]] = []
        start = time.perf_counter()
        progress(f"observe {len(images)} calibration images")
        samples = _SAMPLES if settings.ranges == "mse" or settings.profile == "thorough" else 0
        seen = observe(graph, images, samples)
        fit, held = split(seen, min(_HELD_OUT[settings.profile], len(images) // 4))
        self.seen: Observations = seen.rows(fit)
        self.fit_images = images[fit]
        self.held_images = images[held]
        self.held_outputs = [t[held] for t in seen.outputs]
        self.method = "trim" if settings.ranges == "auto" else str(settings.ranges)
        self.seconds = {"observe": time.perf_counter() - start}

    def score(self) -> float:
        """Pooled SQNR in dB of the outputs on held-out calibration images, as the graph is now."""
        got = simulate(self.graph, self.held_images, batch=8)
        flat = [torch.cat([t.flatten() for t in side]) for side in (self.held_outputs, got)]
        return max(-_DB_LIMIT, min(_DB_LIMIT, sqnr_db(flat[0], flat[1])))

    def part(self, name: str, work: Callable[[], None]) -> float:
        """Do one part, then measure it."""
        self.progress(name.replace("_", " "))
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        after = self.score()
        gain = after - self.parts[-1]["sqnr_db"] if self.parts else 0.0
        self.parts.append({"part": name, "sqnr_db": after, "gain_db": gain, "seconds": seconds})
        return gain

    def annotate(self, method: str | None = None) -> None:
        """Parameters from scratch: activations by a range method, weights by their largest magnitude."""
        for value in self.graph.constants():
            value.quant = None
        qparams.annotate(self.graph, ranges.ranges_of(self.seen, method or self.method))

    def all_parts(self) -> None:
        settings = self.settings
        self.part("minmax", lambda: self.annotate("minmax"))
        if self.method != "minmax":
            self.part(self.method, self.annotate)
        if settings.equalize:
            self.part("equalize", self._equalize)
        if settings.ranges == "auto":
            self.part("ranges", self._best_ranges)
        if settings.weight_mse:
            self.part("weight_mse", lambda: void(rounding.shrink_scales(self.graph)))
        if settings.gptq or settings.bias_correction:
            name = (
                "gptq_and_bias"
                if settings.gptq and settings.bias_correction
                else ("gptq" if settings.gptq else "bias_correction")
            )
            self.part(name, self._adjust)

    def _equalize(self) -> None:
        equalize(self.graph, self.seen)
        self.annotate()

    def _best_ranges(self) -> None:
        scores = {}
        for method in _CANDIDATES[self.settings.profile]:
            self.annotate(method)
            scores[method] = self.score() + (0.0 if method == "trim" else -_TIGHTER_MUST_GAIN)
        self.method = max(scores, key=lambda m: scores[m])
        self.annotate()

    def _adjust(self) -> None:
        count = _CORRECTION_IMAGES[self.settings.profile]
        adjust(
            self.graph,
            self.fit_images[:count],
            self.seen,
            gptq=bool(self.settings.gptq),
            bias=bool(self.settings.bias_correction),
        )

    def report(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "images": len(self.fit_images),
            "held_out_images": len(self.held_images),
            "ranges": self.method,
            "parts": self.parts,
            "sqnr_db": self.parts[-1]["sqnr_db"],
            "seconds": self.seconds,
        }


def void(_result: object) -> None:
    """Drop a count nobody asked for."""
