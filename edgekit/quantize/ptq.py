"""Post-training quantization: a float graph and images in, an annotated graph and a measured report out.

Enters: a graph after the float passes, calibration images, (N, ...) per graph input. Leaves: a copy of the
graph whose activations and weights carry QuantParams, and a report of what each part of the pipeline gained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from edgekit.errors import QuantizationError
from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.graph.run import run
from edgekit.quantize import qparams, ranges, rounding
from edgekit.quantize.bias_correction import adjust
from edgekit.quantize.choose import choose
from edgekit.quantize.equalize import equalize, families
from edgekit.quantize.images import Given, Images, images_first
from edgekit.quantize.observers import Observations, observe, trim_count
from edgekit.quantize.simulate import simulate, sqnr_db

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeSettings:
    """What the quantization stage does. `profile` fills in every part left at None.

    Args:
        profile: "fast" (seconds) or "thorough" (under a minute).
        activations: "int8", or "int16", whose 65,536 steps leave room for twice the calibrated range; every
            other part is fitted to that.
        calibration: at most this many images are used.
        ranges: "minmax", "trim", "tight", "mse" (see `ranges`), or "auto": scored on held-out calibration
            images.
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


_PROFILES: dict[str, dict[str, Any]] = {
    "fast": {"ranges": "auto", "equalize": True, "weight_mse": False, "bias_correction": True, "gptq": False},
    "thorough": {
        "ranges": "auto",
        "equalize": True,
        "weight_mse": True,
        "bias_correction": True,
        "gptq": True,
    },
}
_MAY_LOSE = 0.3  # dB below plain trimming, on held-out images, that is still sampling error
_HEADROOM = 2.0  # of 16-bit ranges: one bit of 16 against clipping, 30 -> 39 dB on trained V3-Small
_DB_LIMIT = 200.0  # stands for exact: JSON has no infinity
_SAMPLES = {"fast": 256, "thorough": 512}  # values kept per image and tensor for the mse ranges
_SAMPLES_IN_ALL, _FEWEST_SAMPLES = 1 << 17, 32  # beyond, an image gives fewer
_CORRECTION_IMAGES = {"fast": 32, "thorough": 64}
_HELD_OUT = {"fast": 8, "thorough": 24}


def resolved(settings: QuantizeSettings) -> QuantizeSettings:
    """Every part on or off: what was not chosen is filled in by the profile."""
    profile = _PROFILES[settings.profile]
    if settings.activations == "int16":
        profile = profile | {"ranges": "trim"}
    chosen = {k: v for k, v in profile.items() if getattr(settings, k) is None}
    return replace(settings, **chosen)


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
        progress: called with one line as each part starts.
    Returns: an annotated copy, and a report with each part's seconds and gain in dB.
    Raises: QuantizationError for NaN or infinity in images, weights or activations.
    """
    graph = graph.copy()
    run = _Run(
        graph,
        Images(graph, images),
        resolved(settings or QuantizeSettings()),
        progress or (lambda _line: None),
    )
    run.all_parts()
    count = _CORRECTION_IMAGES[run.settings.profile]
    means = {node.output.name: rows[:count].clone() for node, rows in run.seen.mean.items()}
    return QuantizeResult(run.graph, run.report(), means, run.order[:count].clone())


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

    def __init__(self, graph: Graph, images: Images, settings: QuantizeSettings, progress: Progress) -> None:
        self.graph, self.settings, self.progress = graph, settings, progress
        images = images.rows(slice(settings.calibration))
        self.parts: list[dict[str, Any]] = []
        start = time.perf_counter()
        progress(f"observe {len(images)} calibration images")
        samples = _SAMPLES[settings.profile] if settings.ranges in ("mse", "auto") else 0
        samples = min(samples, max(_FEWEST_SAMPLES, _SAMPLES_IN_ALL // len(images)))
        count, holds = _CORRECTION_IMAGES[settings.profile], _HELD_OUT[settings.profile]
        rescaled = {value for family in families(graph) for value in family.values}
        # the first `count` ordinary images have no more than the strange and the held ones before them
        seen = observe(
            graph, images, samples, channels=rescaled, means=2 * (count + holds) + len(images) // 32
        )
        fit, held = split(seen, min(holds, len(images) // 4))
        seen.keep(fit, count)
        self.seen: Observations = seen
        self.order = fit
        self.choices = choose(graph, self.seen, settings.activations)
        self.fit_images = images.rows(fit)
        self.held_images = images.rows(held)
        self.dims = batch_dims(graph)
        self.held_outputs = self.by_image(_float_outputs(graph, self.held_images, self.dims))
        self.method = "trim" if settings.ranges == "auto" else str(settings.ranges)
        self.seconds = {"observe": time.perf_counter() - start}

    def by_image(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """(held-out images, values) of each output."""
        count = len(self.held_images)
        return [
            images_first(t, self.dims.get(value), count).reshape(count, -1)
            for value, t in zip(self.graph.outputs, outputs, strict=True)
        ]

    def score(self) -> tuple[float, float]:
        """SQNR in dB of the outputs on held-out calibration images: pooled, and the mean over images.

        The pooled figure is ruled by the worst images, the mean by ordinary ones: the choice of
        ranges looks at both.
        """
        got = self.by_image(simulate(self.graph, self.held_images, batch=8))
        pairs = (torch.cat(self.held_outputs, 1), torch.cat(got, 1))
        each = [_finite(sqnr_db(a, b)) for a, b in zip(*pairs, strict=True)]
        return _finite(sqnr_db(*pairs)), sum(each) / len(each)

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Do one part and measure it."""
        self.progress(name.replace("_", " "))
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        pooled, typical = self.score()
        gain = pooled - self.parts[-1]["sqnr_db"] if self.parts else 0.0
        self.parts.append(
            {"part": name, "sqnr_db": pooled, "typical_db": typical, "gain_db": gain, "seconds": seconds}
        )

    def annotate(self, method: str | None = None) -> None:
        """Parameters from scratch: activations by a range method, weights by their largest magnitude."""
        for value in self.graph.constants():
            value.quant = None
        found = ranges.ranges_of(self.seen, method or self.method)
        if self.settings.activations == "int16":
            found = {v: (low * _HEADROOM, high * _HEADROOM) for v, (low, high) in found.items()}
        qparams.annotate(self.graph, found, self.settings.activations, self.choices)

    def all_parts(self) -> None:
        """Everything the settings ask for; with "auto", again on trimmed ranges where that is clearly better.

        Parts are judged together: equalization and least-squares ranges pay off once biases are corrected.
        """
        self.part("minmax", lambda: self.annotate("minmax"))
        if self.settings.ranges != "auto":
            self.method = str(self.settings.ranges)
            self.improve()
            return
        self.part("trim", lambda: self.annotate("trim"))
        before, seen, plain = _state(self.graph), self.seen.copy(), self.parts[-1]
        self.method = "mse"
        self.improve()
        last = self.parts[-1]
        if min(last[k] - plain[k] for k in ("sqnr_db", "typical_db")) < -_MAY_LOSE:
            _restore(before)
            self.seen, self.method = seen, "trim"
            self.part("back_to_trim", lambda: None)
            self.improve()

    def improve(self) -> None:
        """Ranges by the current method, and every other part that is on."""
        settings = self.settings
        if self.parts[-1]["part"] not in (self.method, "back_to_trim"):
            self.part(self.method, self.annotate)
        if settings.equalize:
            self.part("equalize", self._equalize)
        if settings.weight_mse:
            self.part("weight_mse", lambda: rounding.shrink_scales(self.graph))
        if settings.bias_correction:
            self.part("bias_correction", lambda: self._adjust(gptq=False, bias=True))
        if settings.gptq:  # moves weights, so biases are corrected anew in the same pass
            self.part("gptq", lambda: self._adjust(gptq=True, bias=bool(settings.bias_correction)))

    def _equalize(self) -> None:
        equalize(self.graph, self.seen)
        self.annotate()

    def _adjust(self, *, gptq: bool, bias: bool) -> None:
        count = _CORRECTION_IMAGES[self.settings.profile]
        adjust(self.graph, self.fit_images.rows(slice(count)), self.seen, gptq=gptq, bias=bias)

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


def _float_outputs(graph: Graph, images: Images, dims: dict[Value, int | None]) -> list[torch.Tensor]:
    with torch.inference_mode():
        pieces = [run(graph, inputs) for inputs in images.batches(images.at_once())]
    along = [dims.get(value) or 0 for value in graph.outputs]
    return [
        torch.cat([part.reshape(1) if part.ndim == 0 else part for part in parts], dim)
        for parts, dim in zip(zip(*pieces, strict=True), along, strict=True)
    ]


def _finite(db: float) -> float:
    return max(-_DB_LIMIT, min(_DB_LIMIT, db))


State = dict[Value, tuple[torch.Tensor | None, QuantParams | None, tuple[float, float] | None]]


def _state(graph: Graph) -> State:
    """What parts change: they replace these and write nothing in place."""
    return {value: (value.data, value.quant, value.range) for value in graph.values()}


def _restore(state: State) -> None:
    for value, (data, quant, bounds) in state.items():
        value.data, value.quant, value.range = data, quant, bounds
