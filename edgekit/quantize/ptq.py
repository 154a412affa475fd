"""Post-training quantization: a float graph and images in, an annotated graph and a measured report out.

Enters: a graph after the float passes, calibration images (N, C, H, W). Leaves: a copy of the graph whose
activations and weights carry QuantParams, and a report of what each part of the pipeline gained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from edgekit.errors import QuantizationError
from edgekit.ir import Graph, Value
from edgekit.quantize import qparams, rules
from edgekit.quantize.observers import Observations, observe
from edgekit.quantize.simulate import simulate, sqnr_db

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeSettings:
    """What the quantization stage does. `profile` fills in every part left at None.

    Args:
        profile: "fast" (seconds) or "thorough" (under a minute).
        calibration: at most this many images are used.
        ranges: "minmax", "trim", "mse", or "auto" (scored on held-out calibration images).
    """

    profile: Literal["fast", "thorough"] = "fast"
    calibration: int = 128
    ranges: Literal["trim", "minmax", "mse", "auto"] | None = None
    equalize: bool | None = None
    weight_mse: bool | None = None
    bias_correction: bool | None = None
    gptq: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in {
            "profile": ("fast", "thorough"),
            "ranges": (None, "trim", "minmax", "mse", "auto"),
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
    settings = settings or QuantizeSettings()
    tell = progress or (lambda _line: None)
    start = time.perf_counter()
    images = images[: settings.calibration].float()
    result = graph.copy()
    tell(f"observe {len(images)} images")
    seen = observe(result, images)
    held = max(1, min(8, len(images) // 4))
    fit = seen.rows(slice(0, max(1, len(images) - held)))
    parts: list[dict[str, Any]] = []

    def score() -> float:
        outputs = simulate(result, images[-held:])
        return sqnr_db(
            torch.cat([t[-held:].flatten() for t in seen.outputs]), torch.cat([t.flatten() for t in outputs])
        )

    qparams.annotate(result, ranges_of(result, fit, settings.ranges or "trim"))
    parts.append({"part": "ranges", "sqnr_db": score(), "seconds": time.perf_counter() - start})
    report = {"settings": asdict(settings), "images": len(images), "held_out": held, "parts": parts}
    return QuantizeResult(result, report)


def ranges_of(graph: Graph, seen: Observations, method: str) -> dict[Value, rules.Range]:
    """A range per observed activation."""
    choose = {"minmax": seen.minmax, "trim": seen.trimmed}[method]
    return {value: choose(value) for value in seen.low}
