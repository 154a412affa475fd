"""Valid measurement records for the tests of history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

FLAT = [[2_000_000 + 100 * i] * 9 for i in range(5)]


def record(
    run: str = "run-0001",
    samples: Sequence[Sequence[int]] = FLAT,
    created: str = "2026-03-01T12:00:00Z",
    sha256: str = "a" * 64,
    **changes: Any,
) -> dict[str, Any]:
    """A valid record; `changes` replace fields by path, as device__id="pi5"."""
    pooled = np.concatenate([np.asarray(one) for one in samples])
    p50, p90 = np.percentile(pooled, [50, 90]) / 1e6
    content: dict[str, Any] = {
        "schema_version": 1,
        "run": run,
        "created": created,
        "device": {
            "id": "pi5-a",
            "kind": "ssh",
            "fingerprint": {"model": "Raspberry Pi 5", "cpu": {"cores": 4, "part": "0xd0b"}},
            "emulated": False,
        },
        "artifact": {"sha256": sha256, "name": "mobilenet_v2", "target": "tflite-int8"},
        "runtime": {"name": "ai-edge-litert", "version": "2.3.0", "delegate": "XNNPACK", "partitions": 1},
        "threads": 1,
        "profile": "publish",
        "power_mode": "performance",
        "harness": {"name": "litert", "version": "1"},
        "latency": {
            "p50_ms": float(p50),
            "p90_ms": float(p90),
            "p99_ms": None,
            "n": int(pooled.size),
            "processes": len(samples),
        },
        "samples_ns": [[int(value) for value in one] for one in samples],
        "init_ms": 3.5,
        "validity": {"ok": True, "reasons": []},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return content


def noisy(
    rng: np.random.Generator,
    run: str,
    *,
    factor: float = 1.0,
    processes: int = 5,
    between: float = 0.01,
    **changes: Any,
) -> dict[str, Any]:
    """A record whose processes differ by a relative deviation of `between`, and its samples a little."""
    centres = 2e6 * factor * np.exp(between * rng.standard_normal(processes))
    samples = [(centre * np.exp(0.02 * rng.standard_normal(21))).astype(int).tolist() for centre in centres]
    return record(run, samples, **changes)
