"""One model in four formats, three of them timed: invented figures, the shape that a build writes."""

from __future__ import annotations

import copy
import functools
from itertools import combinations
from typing import Any

import report_fixture
from report_fixture import sha

TARGETS = ("tflite-int8", "onnx-int8", "openvino-int8", "tensorrt-int8")
FILES = {
    "tflite-int8": ("model.tflite",),
    "onnx-int8": ("model.onnx",),
    "openvino-int8": ("model.xml", "model.bin"),
    "tensorrt-int8": ("model.onnx",),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ai-edge-litert 2.3.0": {"delegate": "XNNPACK", "threads": 1},
    "onnxruntime 1.31.1": {
        "providers": ["CPUExecutionProvider"],
        "graph_optimization": "all",
        "intra_op_threads": 1,
        "allow_spinning": False,
    },
    "openvino 2026.4.0": {
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
    },
}
TIMED = (  # target, runtime, precision, p50, p90, p99, half the interval, one of the artifacts
    ("openvino-int8", "openvino 2026.4.0", "int8", 2.41, 2.52, 2.93, 0.03, True),
    ("tflite-int8", "ai-edge-litert 2.3.0", "int8", 3.06, 3.14, 3.47, 0.04, True),
    ("onnx-float32", "onnxruntime 1.31.1", "float32", 5.02, 5.31, 6.20, 0.09, False),
    ("openvino-float32", "openvino 2026.4.0", "float32", 5.35, 5.58, 6.41, 0.07, False),
    ("onnx-int8", "onnxruntime 1.31.1", "int8", 5.88, 6.07, 7.22, 0.12, True),
    ("tflite-float32", "ai-edge-litert 2.3.0", "float32", 6.30, 6.48, 7.17, 0.05, False),
)
DIFFER = {  # images, SQNR in dB, first layer where the two part
    ("tflite-int8", "onnx-int8"): (4, 41.3, ("features.4.block.2.fc2", "conv2d", 58.2, 43.0)),
    ("tflite-int8", "openvino-int8"): (23, 27.9, ("features.1.add", "add", 61.0, 36.4)),
    ("tflite-int8", "tensorrt-int8"): (4, 41.3, ("features.4.block.2.fc2", "conv2d", 58.2, 43.0)),
    ("onnx-int8", "openvino-int8"): (25, 27.6, ("features.1.add", "add", 63.5, 36.1)),
    ("onnx-int8", "tensorrt-int8"): (0, 200.0, None),
    ("openvino-int8", "tensorrt-int8"): (25, 27.6, None),
}


def report() -> dict[str, Any]:
    """A fresh copy: tests change it as they like."""
    return copy.deepcopy(_report())


@functools.cache
def _report() -> dict[str, Any]:
    content = report_fixture.report()
    content["artifacts"] = {name: _artifact(name) for name in TARGETS}
    content["gates"] = [gate for name in TARGETS for gate in report_fixture.gates(name)]
    content["gates"].append({
        "name": "agreement", "ok": True, "hint": None, "target": "all",
        "detail": "every two artifacts agree on at least 98.75 % of 2,000 images (limit 98.00 %)",
    })  # fmt: skip
    content["provenance"]["recipe"]["target"]["names"] = list(TARGETS)
    content["runtimes"], content["agreement"] = runtimes(), agreement()
    return content


def runtimes() -> list[dict[str, Any]]:
    fastest = TIMED[0][3]
    return [
        {"target": target, "runtime": runtime, "precision": precision, "settings": dict(SETTINGS[runtime]),
         "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "p50_low_ms": round(p50 - half, 3),
         "p50_high_ms": round(p50 + half, 3), "n": 1100, "relative": round(p50 / fastest, 4),
         "artifact": artifact}
        for target, runtime, precision, p50, p90, p99, half, artifact in TIMED
    ]  # fmt: skip


def agreement(images: int = 2000) -> dict[str, Any]:
    n = len(TARGETS)
    top1 = [[100.0] * n for _ in range(n)]
    sqnr: list[list[float | None]] = [[None] * n for _ in range(n)]
    pairs = []
    for (i, a), (j, b) in combinations(enumerate(TARGETS), 2):
        differ, decibels, layer = DIFFER[a, b]
        top1[i][j] = top1[j][i] = percent = 100 - 100 * differ / images
        sqnr[i][j] = sqnr[j][i] = decibels
        first = None
        if layer is not None:
            module, op, before, after = layer
            first = {"value": f"v_{module}", "module": module, "op": op, "sqnr_db_before": before,
                     "sqnr_db": after}  # fmt: skip
        pairs.append({"a": a, "b": b, "agreement": percent, "sqnr_db": decibels, "differ": differ,
                      "divergence": first})  # fmt: skip
    return {"n": images, "targets": list(TARGETS), "top1": top1, "sqnr_db": sqnr, "pairs": pairs,
            "min_agreement": 98.0}  # fmt: skip


def _artifact(target: str) -> dict[str, Any]:
    size = 4_386_220 + 1000 * TARGETS.index(target)
    times = {name: row for name, *row in TIMED}
    found = report_fixture.artifact(target, size, 0.3, times.get(target, [0, 0, 3.04])[2])
    if target in times:
        base = times[target.replace("int8", "float32")]
        figures = ("p50_ms", "p90_ms", "p99_ms")
        found["latency"].update(zip(figures, times[target][2:5], strict=True))
        found["latency"].update(zip((f"float_{name}" for name in figures), base[2:5], strict=True))
        found["latency"]["samples"]["float_ms"] = report_fixture.samples(base[2] * 0.985, 99)
        found["flipped"] = found["flipped"][:4]
    files = FILES[target]
    found["path"] = f"{target}/{files[0]}"
    found["files"] = {name: sha(f"{target}/{name}") for name in files}
    found["sha256"] = found["files"][files[0]]
    if target == "tflite-int8":
        found["latency"].update(float_target="tflite-float32", settings=SETTINGS["ai-edge-litert 2.3.0"])
        return found
    found["audit"].update(
        int8_ops_share=0.968,
        float_ops=["Softmax at softmax", "Mul at features.16.2.mul"],
        partitions=None,
        undelegated_ops=["Mul at features.16.2.mul"],
        transposes=2,
        executed={"kinds": {"int8": 118, "float": 4, "convert": 3}},
        input_dtype="float32",
        output_dtype="float32",
    )
    for row in found["layers"]:
        row["where"] = "float" if row["name"] in ("softmax", "features.16.2.mul") else "int8"
    if target == "tensorrt-int8":
        found["latency"] = None
        found["audit"]["undelegated_ops"] = None
        return found
    _, runtime, *_ = next(row for row in TIMED if row[0] == target)
    baseline = target.replace("int8", "float32")
    found["latency"].update(runtime=runtime, float_target=baseline, settings=SETTINGS[runtime])
    return found
