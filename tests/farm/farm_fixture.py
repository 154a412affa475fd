"""A farm's report with everything in it: valid, slower, INVALID, failed, not run. The real code builds it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from history_records import noisy

from edgekit.device.harness import FileRun
from edgekit.device.result import Result
from edgekit.device.statistics import figures
from edgekit.farm import report as farm_report
from edgekit.farm import state
from edgekit.history import History, records_of

MODELS = ("mobilenet_v3_large", "efficientnet_lite0")
BOARDS = {
    "pi4-a": ("raspberry_pi", "Raspberry Pi", "Raspberry Pi 4 Model B Rev 1.4", 7.1),
    "pi4-b": ("raspberry_pi", "Raspberry Pi", "Raspberry Pi 4 Model B Rev 1.4", 7.2),
    "orin": ("jetson", "NVIDIA Jetson", "NVIDIA Jetson Orin Nano", 1.9),
    "pixel": ("android", "Android", None, 3.0),
}
BAD = (
    "3 failures of the board in a row, the last: pixel: connect ended with 255 (no route to host): its cable"
)


def drift(**changes: Any) -> dict[str, Any]:
    return {
        "inputs": 32,
        "source": "embedded evaluation, first 32",
        "reference": "this machine",
        "identical": 32,
        "max_lsb": 0,
        "max_difference": None,
        "argmax_agreement": 0.969,
        "top1_device": None,
        "top1_reference": None,
    } | changes


def report(folder: Path) -> dict[str, Any]:
    """The report, as `edgekit farm run` builds it from a journal and a history under `folder`."""
    rng = np.random.default_rng(0)
    header = {"jobs": [], "settings": {"profile": "publish", "threads": 1}}
    with state.create(folder / "run", header) as journal, History(folder / "history.sqlite") as history:
        for model in MODELS:
            for board in BOARDS:
                for target in ("tflite-int8", "tflite-float32")[
                    : 2 if model == MODELS[0] and board != "pixel" else 1
                ]:
                    journal.append(_row(journal, history, rng, model, board, target))
        about = {
            name: {
                "kind": kind,
                "title": title,
                "transport": "ssh",
                "tags": [],
                "emulated": False,
                "bad": BAD if name == "pixel" else None,
            }
            for name, (kind, title, _, _) in BOARDS.items()
        }
        return farm_report.build(journal, list(journal.rows.values()), about, history)


def _row(
    journal: state.Journal, history: History, rng: np.random.Generator, model: str, board: str, target: str
) -> state.Row:
    sha256 = hashlib.sha256(f"{model} {target}".encode()).hexdigest()
    row: state.Row = {
        "job": hashlib.sha256(f"{model} {target} {board}".encode()).hexdigest()[:16],
        "model": model,
        "target": target,
        "device": board,
        "sha256": sha256,
        "size_bytes": 4_770_000,
        "rejected": False,
        "status": state.VALID,
        "reasons": [],
        "boot": "1",
    }
    if board == "pixel":
        return row | {"status": state.NOT_RUN, "reasons": [BAD]}
    row |= {"worker": "shelf:4711", "started": "2026-03-09T12:00:00+00:00", "notes": []}
    row |= {"start_ns": len(journal.rows) * 10**11, "end_ns": len(journal.rows) * 10**11 + 6 * 10**10}
    if model == MODELS[1] and board == "orin":
        return row | {
            "status": state.FAILED,
            "reasons": ["orin: trtexec ended with 1 (does not load): a model it takes"],
        }
    reasons = ["throttled: under-voltage"] if (model, board) == (MODELS[1], "pi4-b") else []
    slower = 1.2 if (model, board, target) == (MODELS[0], "pi4-b", "tflite-int8") else 1.0
    base = (
        BOARDS[board][3] * (2.1 if target == "tflite-float32" else 1.0) * (1.4 if model == MODELS[1] else 1.0)
    )
    content, samples = _content(rng, row, base * slower, reasons)
    result = Result(content, samples)
    path = result.write(journal.directory / "results")
    record = records_of(content, samples, {target: (model, target)})[0]
    if board != "orin":
        for day in range(1, 8):
            centre = base / 2.0 * np.exp(0.004 * rng.standard_normal())
            history.add(_earlier(rng, record, f"{day}-{row['job']}", f"2026-03-0{day}T12:00:00Z", centre))
    history.add(record)
    status = state.INVALID if reasons else state.VALID
    place = str(path.relative_to(journal.directory))
    return row | {"status": status, "reasons": reasons, "result": place, "record": record["run"]}


def _earlier(rng: np.random.Generator, record: Any, run: str, created: str, factor: float) -> Any:
    """The same conditions as `record`, another day; noisy() is centred on 2 ms."""
    earlier = noisy(rng, run, factor=factor, between=0.004, created=created)
    kept = ("device", "artifact", "runtime", "threads", "profile", "power_mode", "harness")
    return earlier | {key: record[key] for key in kept}


def _content(rng: np.random.Generator, row: Any, p50_ms: float, reasons: list[str]) -> Any:
    centres = p50_ms * 1e6 * np.exp(0.004 * rng.standard_normal(5))
    runs = [(c * np.exp(0.02 * np.abs(rng.standard_normal(205)))).astype(int).tolist() for c in centres]
    kind, _, model, _ = BOARDS[row["device"]]
    exact = row["target"] == "tflite-int8"
    file = {
        "sha256": row["sha256"],
        "size_bytes": row["size_bytes"],
        "format": "tflite",
        "delegate": "xnnpack",
        "partitions": 1,
        "figures": figures([FileRun(9 * 10**6, 10**7, run, count=len(run)) for run in runs]),
        "memory": {"peak_bytes": 30 * 2**20, "method": "VmHWM"},
        "drift": drift()
        if exact
        else drift(identical=3, max_lsb=None, max_difference=3e-6, argmax_agreement=1.0),
        "sustained": None,
    }
    content = {
        "schema_version": 1,
        "edgekit_version": "1",
        "harness_version": "1",
        "run": f"farm-{row['job']}",
        "started": row["started"],
        "finished": row["started"],
        "profile": {
            "name": "publish",
            "processes": 5,
            "samples": 205,
            "seconds": 12.0,
            "max_seconds": 60.0,
            "warmup": 10,
            "warmup_seconds": 1.0,
        },
        "device": {
            "id": row["device"],
            "kind": kind,
            "transport": "ssh",
            "emulated": False,
            "tags": [],
            "fingerprint": {"machine": "aarch64", "model": model, "governor": "performance"},
            "fingerprint_id": "1",
            "state": {},
            "clocks": "observe",
        },
        "runtime": {
            "harness": "litert",
            "name": "ai-edge-litert",
            "version": "2.3.0",
            "python": None,
            "threads": 1,
            "delegate": "xnnpack",
        },
        "files": {row["target"]: file},
        "ratios": [],
        "telemetry": {"before": {}, "after": {}, "series": []},
        "validity": {
            "status": "INVALID" if reasons else "valid",
            "reasons": reasons,
            "notes": [],
            "attempts": 3 if reasons else 1,
        },
    }
    return content, {row["target"]: runs}
