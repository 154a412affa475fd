"""The figures edgekit sets itself, and how a measured row stands against them; and Markdown tables.

Enters: rows of plain numbers, as the scripts beside this file measure them. Leaves: checks and text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# model: (int8 / float latency, int8 / peer int8 latency), both at most; one delegate partition each
LATENCY = {
    "mobilenet_v3_large": (0.53, 0.38),
    "mobilenet_v3_small": (0.60, 0.31),
    "mobilenet_v2": (0.48, 1.00),
    "efficientnet_b0": (0.48, 1.00),
    "resnet18": (0.27, 0.91),
    "shufflenet_v2_x1_0": (0.41, 0.88),
}
PARTITIONS = 1
NO_TRANSPOSE = ("shufflenet_v2_x1_0",)
BUILD_MODEL = "mobilenet_v3_large"
BUILD_INT8 = 0.5  # of the peers' seconds
BUILD_FLOAT = 1 / 3
# reference model: (dB above the peers' pooled SQNR, at least; points of top-1 lost, at most)
ACCURACY = {
    "mobilenet_v3_large": (4.0, 1.0),
    "mobilenet_v3_small": (3.0, 1.5),
    "mobilenet_v2": (2.0, 0.5),
    "efficientnet_lite0": (2.0, 0.5),
}
AGREEMENT = 97.0
RESCALED_LOSS = 1.0  # points
POISONED_LOSS_DB = 0.5
# of each runtime's own quantizer's latency, at most: the geometric mean, and any one model
OPENVINO_MEAN, OPENVINO_WORST = 0.98, 1.05
ONNX_MEAN = 0.88
EXPORT_MODEL = "mobilenet_v3_large"
EXPORT = 1 / 3  # of torch.onnx.export's seconds
TOGETHER = 99.0  # percent of images on which two runtimes name the same class


@dataclass(frozen=True)
class Check:
    """One figure beside its bar. sense: "<=", ">=" or "=="."""

    model: str
    what: str
    value: float
    sense: str
    limit: float

    @property
    def ok(self) -> bool:
        if self.sense == "==":
            return self.value == self.limit
        return self.value <= self.limit if self.sense == "<=" else self.value >= self.limit

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


def latency_checks(row: dict[str, Any]) -> list[Check]:
    """A row of tflite_peers.py against its bars. int8 is held against the faster of the two float files."""
    model, checks = row["model"], []
    if model in LATENCY:
        over_float, over_peer = LATENCY[model]
        fastest = max(row["ratios"]["int8_float"], row["ratios"]["int8_peer_float"])
        checks += [
            Check(model, "int8 / fastest float latency", fastest, "<=", over_float),
            Check(model, "int8 / peers' int8 latency", row["ratios"]["int8_peer_int8"], "<=", over_peer),
            Check(model, "partitions", row["edgekit"]["partitions"], "==", PARTITIONS),
        ]
    if model in NO_TRANSPOSE:
        checks.append(Check(model, "TRANSPOSE", row["edgekit"]["transposes"], "==", 0))
    gain = row["edgekit"]["sqnr_db"] - row["peer"]["sqnr_db"]
    checks.append(Check(model, "SQNR above peers', dB", gain, ">=", 0.0))
    if model == BUILD_MODEL and row["build"]["same_run"]:
        checks += [
            Check(model, "int8 build / peers'", row["build"]["int8_ratio"], "<=", BUILD_INT8),
            Check(model, "float build / peers'", row["build"]["float_ratio"], "<=", BUILD_FLOAT),
        ]
    return checks


def accuracy_checks(row: dict[str, Any]) -> list[Check]:
    """A row of accuracy_peers.py against its bars, for each of edgekit's profiles it holds."""
    model, checks = row["model"], []
    gain, drop = ACCURACY.get(model, (0.0, 1.0))
    for profile, figures in row["edgekit"].items():
        above = figures["sqnr_db"] - row["peer"]["sqnr_db"]
        checks += [
            Check(model, f"{profile}: SQNR above peers', dB", above, ">=", gain),
            Check(model, f"{profile}: agreement, %", figures["agreement"], ">=", AGREEMENT),
            Check(model, f"{profile}: top-1 drop, points", figures["drop"], "<=", drop),
        ]
        for kind, stressed in row.get("robustness", {}).items():
            if profile not in stressed["edgekit"]:
                continue
            figures_then = stressed["edgekit"][profile]
            if kind == "rescaled":
                what, value, limit = "points lost", figures_then["drop"], RESCALED_LOSS
            else:
                what, value = "dB lost", figures["sqnr_db"] - figures_then["sqnr_db"]
                limit = POISONED_LOSS_DB
            checks.append(Check(model, f"{profile}, {kind}: {what}", value, "<=", limit))
    return checks


def runtime_latency_checks(rows: Sequence[dict[str, Any]]) -> list[Check]:
    """Latency rows of onnx_openvino_peers.py against their bars: ratios[pair] is (ratio, low, high)."""
    if not rows:
        return []
    every = f"all {len(rows)}" if len(rows) > 1 else rows[0]["model"]

    def mean(pair: str) -> float:
        return geometric_mean(row["ratios"][pair][0] for row in rows)

    mine, other = "openvino-int8 / NNCF latency", "onnx-int8 / quantize_static latency"
    checks = [Check(every, f"{mine}, geometric mean", mean("openvino_peer"), "<=", OPENVINO_MEAN)]
    checks += [
        Check(row["model"], mine, row["ratios"]["openvino_peer"][0], "<=", OPENVINO_WORST) for row in rows
    ]
    checks.append(Check(every, f"{other}, geometric mean", mean("onnx_peer"), "<=", ONNX_MEAN))
    for row in rows:
        said = any(sentence.startswith("onnx-int8 ") for sentence in row["slower"])
        unsaid = row["ratios"]["onnx_float"][0] > 1.0 and not said
        checks.append(Check(row["model"], "onnx-int8 slower than float32, unsaid", int(unsaid), "==", 0))
    return checks


def runtime_quality_checks(rows: Iterable[dict[str, Any]]) -> list[Check]:
    """Quality rows of onnx_openvino_peers.py: files[name] has sqnr_db and agreement; pairs are of runtimes.

    A seeded network and a trained one may have the same name, so the kind of weights stands beside it.
    """
    checks = []
    for row in rows:
        model, files = f"{row['model']}, {row['weights']}", row["files"]
        for mine, peer, keys in (
            ("openvino-int8", "nncf", ("sqnr_db", "agreement")),
            ("onnx-int8", "quantize_static", ("sqnr_db",)),
        ):
            for key in keys:
                gain = files[mine][key] - files[peer][key]
                what = "SQNR above, dB" if key == "sqnr_db" else "agreement above, points"
                checks.append(Check(model, f"{mine} and {peer}: {what}", gain, ">=", 0.0))
        for pair in row["pairs"]:
            what = f"{pair['first']} and {pair['second']} agree, %"
            checks.append(Check(model, what, pair["agreement"], ">=", TOGETHER))
    return checks


def export_checks(row: dict[str, Any] | None) -> list[Check]:
    """The export row of onnx_openvino_peers.py: edgekit's seconds over torch's, first call and second."""
    if row is None:
        return []
    return [
        Check(
            row["model"], f"ONNX export / torch.onnx.export, {call} call", row["ratios"][call], "<=", EXPORT
        )
        for call in ("first", "warm")
    ]


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))


def check_table(checks: Iterable[Check]) -> str:
    rows = [
        (c.model, c.what, _number(c.value), f"{c.sense} {_number(c.limit)}", "pass" if c.ok else "**FAIL**")
        for c in checks
    ]
    return table(("model", "figure", "measured", "bar", ""), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, columns padded; every column but the first of numbers is aligned right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in [list(head), *cells])) for i in range(len(head))]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        ("-" * (width - 1) + ":") if numeric else "-" * width
        for width, numeric in zip(widths, right, strict=True)
    ]
    return "\n".join([line(list(head)), line(rule), *map(line, cells)])


def _is_number(text: str) -> bool:
    return text.replace("*", "").strip()[:1] in set("0123456789-+.–") if text.strip() else False


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.2f}"
