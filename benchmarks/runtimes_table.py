"""The tables of onnx_openvino_peers.py: its rows in, Markdown out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import bars
import measure

TIMED = {
    "onnx-float32": "onnx float32",
    "onnx-int8": "onnx int8",
    "quantize_static": "quantize_static",
    "openvino-float16": "openvino float32",
    "openvino-int8": "openvino int8",
    "nncf": "NNCF",
    "openvino default": "openvino float by default",
}
RATIOS = {
    "onnx_peer": "onnx int8 / quantize_static",
    "onnx_float": "onnx int8 / float32",
    "openvino_peer": "openvino int8 / NNCF",
    "openvino_float": "openvino int8 / float32",
    "openvino_default": "openvino int8 / float by default",
}
JUDGED = ("onnx-int8", "quantize_static", "openvino-int8", "nncf", "tflite-int8")
Rows = dict[str, list[dict[str, Any]]]


def markdown(
    rows: Rows,
    checks: Sequence[bars.Check],
    facts: dict[str, Any],
    options: argparse.Namespace,
    missing: list[str],
) -> str:
    """The tables, as they go into the README; missing: what no row was measured for."""
    parts = ["# ONNX Runtime and OpenVINO: edgekit, quantize_static and NNCF", _about(rows, options)]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    if rows["latency"]:
        parts += _latency(rows["latency"])
    if rows["quality"]:
        parts += _quality(rows["quality"])
    parts += [_export(row) for row in rows["export"]]
    parts += ["Bars:", bars.check_table(checks), measure.footer(facts)]
    return "\n\n".join([*parts, *measure.conditions(rows["latency"])]) + "\n"


def _about(rows: Rows, options: argparse.Namespace) -> str:
    profile = "fast" if options.quick else "thorough"
    text = (
        f"Every quantizer got the same {options.calibration} calibration images and the same float network; "
        f"edgekit's profile is {profile}, quantize_static's QDQ, min-max, uint8 activations and int8 weights "
        f"per channel, NNCF's its default. Answers: {options.images} images."
    )
    if rows["latency"]:
        first = rows["latency"][0]
        onnx, openvino = (first["files"][name] for name in ("onnx-int8", "openvino-int8"))
        told = {
            name: ", ".join(f"{k} {v}" for k, v in one["settings"].items())
            for name, one in (("onnx", onnx), ("openvino", openvino))
        }
        text += (
            f" Latency: seeded networks, batch 1, {onnx['threads']} thread, medians of {onnx['processes']} "
            f"fresh processes, all files of a network in turns; ratios are medians over processes with 95 % "
            f"intervals. {onnx['runtime']} ({told['onnx']}); {openvino['runtime']} ({told['openvino']}); "
            f"by default OpenVINO takes {first['default_precision']} on this CPU."
        )
    return text


def _latency(rows: list[dict[str, Any]]) -> list[str]:
    medians = [(row["model"], *(f"{row['files'][name]['p50_ms']:.2f}" for name in TIMED)) for row in rows]
    ratios: list[tuple[str, ...]] = [
        (row["model"], *(_interval(row["ratios"][key], 3) for key in RATIOS)) for row in rows
    ]
    means = (bars.geometric_mean(row["ratios"][key][0] for row in rows) for key in RATIOS)
    ratios.append(("geometric mean", *(f"{value:.3f}" for value in means)))
    said = [f"{row['model']}: {sentence}" for row in rows for sentence in row["slower"]]
    return [
        bars.table(("model, ms", *TIMED.values()), medians),
        bars.table(("model", *RATIOS.values()), ratios),
        *(["Said by the report: " + " ".join(said)] if said else []),
    ]


def _quality(rows: list[dict[str, Any]]) -> list[str]:
    head = ["model", "weights"]
    for what in ("SQNR dB", "agree %"):
        head += [f"{what}, {name}" for name in JUDGED]
    lines = [
        (
            row["model"],
            row["weights"],
            *(
                f"{row['files'][name][key]:.{digits}f}" if name in row["files"] else "–"
                for key, digits in (("sqnr_db", 2), ("agreement", 1))
                for name in JUDGED
            ),
        )
        for row in rows
    ]
    gains = [
        (row["model"], row["weights"], *(_interval(gain, 1) for gain in row["agreement_gain"].values()))
        for row in rows
    ]
    pairs = rows[0]["agreement_gain"]
    shared = [row for row in rows if row["pairs"]]
    parts = [
        bars.table(head, lines),
        "Points of top-1 agreement with float above the peer's, with 95 % intervals over the images:",
        bars.table(("model", "weights", *(" above ".join(pair.split()) for pair in pairs)), gains),
    ]
    if shared:
        names = [f"{pair['first']} and {pair['second']}" for pair in shared[0]["pairs"]]
        parts += [
            "Images of the embedded set on which two runtimes name the same class, percent, and SQNR between "
            "their logits:",
            bars.table(
                ("model", *names),
                [
                    (row["model"], *(f"{p['agreement']:.1f} ({p['sqnr_db']:.1f} dB)" for p in row["pairs"]))
                    for row in shared
                ],
            ),
        ]
    return parts


def _export(row: dict[str, Any]) -> str:
    seconds, ratios = row["seconds"], row["ratios"]
    late = max(run["late"] for runs in row["runs"].values() for run in runs)
    count = len(row["runs"]["edgekit"])
    lines = [
        (
            f"{call} call",
            *(f"{seconds[tool][call]:.2f}" for tool in ("edgekit", "torch")),
            f"{ratios[call]:.2f}",
        )
        for call in ("first", "warm")
    ]
    return (
        f"ONNX export of {row['model']}, from the module to the written file, capture and its proof "
        f"included, seconds; medians over {count} fresh processes of each, in turns. Imports are not "
        f"counted: modules are imported before (at most {late} while the clock ran).\n\n"
        + bars.table(("", "edgekit s", "torch.onnx.export s", "ratio"), lines)
    )


def _interval(figures: Sequence[float], digits: int) -> str:
    value, low, high = figures
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
