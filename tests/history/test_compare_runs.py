"""The rule of regression: statistics against brute force, refusals, and how often it is wrong."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from history_records import FLAT, noisy, record

from edgekit.errors import UsageError
from edgekit.history.compare import (
    RefusedError,
    compare,
    device_noise,
    differences,
    permutation_p,
    process_medians,
)


def brute_force_p(x: list[float], y: list[float]) -> float:
    """Mid-ranks by counting, every choice of len(x) positions."""
    pooled = [*x, *y]
    ranks = [sum(v < u for v in pooled) + (1 + sum(v == u for v in pooled)) / 2 for u in pooled]
    middle = len(x) * (len(pooled) + 1) / 2
    seen = abs(sum(ranks[: len(x)]) - middle)
    sums = [abs(sum(c) - middle) for c in itertools.combinations(ranks, len(x))]
    return sum(s >= seen - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize("ties", [False, True])
def test_permutation_p_is_the_enumerated_one(ties: bool) -> None:
    rng = np.random.default_rng(3)
    for sizes in [(1, 1), (2, 3), (4, 4), (5, 5), (4, 7), (8, 5), (3, 1)]:
        for shift in (0.0, 0.7, 2.0):
            x, y = rng.standard_normal(sizes[0]), rng.standard_normal(sizes[1]) + shift
            if ties:
                x, y = x.round(), y.round()
            expected = brute_force_p(x.tolist(), y.tolist())
            assert permutation_p(x, y) == pytest.approx(expected, abs=1e-12)
            assert permutation_p(y, x) == pytest.approx(expected, abs=1e-12)


def test_permutation_p_at_its_ends() -> None:
    assert permutation_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert permutation_p([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert permutation_p([7] * 5, [7] * 5) == 1.0
    many = permutation_p(range(60), range(60, 120))
    assert many == pytest.approx(2 / math.comb(120, 60), rel=1e-9)


def test_slower_faster_and_equal() -> None:
    a = record("run-a")
    slower = record("run-b", [[int(v * 1.05) for v in run] for run in FLAT])
    verdict = compare(a, slower)
    assert verdict.verdict == "regression"
    assert verdict.change_percent == pytest.approx(5.0, abs=0.1)
    assert verdict.p_value == pytest.approx(2 / 252)
    assert verdict.interval_percent[0] > 4.9 and verdict.interval_percent[1] < 5.1
    assert verdict.threshold_percent == 3.0
    assert compare(slower, a).verdict == "improvement"
    assert compare(a, record("run-c")).verdict == "no difference"
    small = compare(a, record("run-d", [[int(v * 1.02) for v in run] for run in FLAT]))
    assert (small.verdict, small.p_value) == ("no difference", pytest.approx(2 / 252))
    assert compare(slower, a, min_change_percent=6).verdict == "no difference"
    with pytest.raises(UsageError, match="at least 0"):
        compare(a, slower, min_change_percent=-1)


def test_three_processes_a_side_give_no_verdict() -> None:
    b = record("run-b", [[9_000_000] * 9] * 3)
    verdict = compare(record("run-a"), b)
    assert (verdict.verdict, verdict.p_value) == ("no verdict", None)
    assert "not enough processes: 5 against 3, at least 4 a side" in verdict.words
    four = [[9_000_000 + i] * 9 for i in range(4)]
    assert compare(record("run-a", FLAT[:4]), record("run-b", four)).verdict == "regression"


def test_one_disturbed_process_neither_makes_nor_hides_a_verdict() -> None:
    disturbed = [*FLAT[:4], [3_000_000] * 9]
    assert compare(record("run-a"), record("run-b", disturbed)).verdict == "no difference"
    slower = [[int(v * 1.06) for v in run] for run in FLAT]
    slower[2] = [9_000_000] * 9
    assert compare(record("run-a"), record("run-b", slower)).verdict == "regression"


def test_process_medians_do_without_raw_samples() -> None:
    bare = record("run-a") | {"samples_ns": []}
    assert process_medians(bare).tolist() == [bare["latency"]["p50_ms"]]
    bare["latency"]["process_p50_ms"] = [2.0, 2.1, 2.2, 2.3, 2.4]
    assert process_medians(bare).tolist() == [2.0, 2.1, 2.2, 2.3, 2.4]
    assert process_medians(record("run-b", [[1_000_000, 3_000_000], [5_000_000]])).tolist() == [2.0, 5.0]


def test_medians_that_a_tool_reports_are_judged_like_those_of_samples() -> None:
    """The same verdict, p and interval with the samples taken away, and a note on what that costs."""

    def bare(content: dict[str, Any]) -> dict[str, Any]:
        latency = content["latency"] | {"process_p50_ms": process_medians(content).tolist()}
        return content | {"samples_ns": [], "latency": latency}

    a, b = record("run-a"), record("run-b", [[int(v * 1.05) for v in run] for run in FLAT])
    judged, reported = compare(a, b), compare(bare(a), bare(b))
    assert reported.verdict == "regression" and reported.processes == (5, 5)
    (note,) = set(reported.notes) - set(judged.notes)
    assert note.startswith("litert gives no raw samples") and "p99" in note
    assert reported.as_dict() == judged.as_dict() | {"notes": reported.notes}


def test_a_record_without_medians_says_why_it_gets_no_verdict() -> None:
    a, b = record("run-a") | {"samples_ns": []}, record("run-b")
    verdict = compare(a, b)
    assert verdict.verdict == "no verdict" and verdict.processes == (1, 5)
    assert "run-a has neither raw samples nor medians of its processes: measure it again" in verdict.notes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device__fingerprint__model": "Pi 4"}, "fingerprint.model Raspberry Pi 5 and Pi 4"),
        ({"device__fingerprint__cpu__cores": 8}, "fingerprint.cpu.cores 4 and 8"),
        ({"device__fingerprint__soc": "x"}, "fingerprint.soc absent and x"),
        ({"device__id": "pi5-b"}, "device pi5-a and pi5-b"),
        ({"device__kind": "adb"}, "device kind ssh and adb"),
        ({"threads": 4}, "threads 1 and 4"),
        ({"runtime__delegate": None}, "delegate XNNPACK and none"),
        ({"runtime__version": "2.4.0"}, "runtime ai-edge-litert 2.3.0 and ai-edge-litert 2.4.0"),
        ({"power_mode": "powersave"}, "power mode performance and powersave"),
        ({"harness__version": "2"}, "harness litert 1 and litert 2"),
        ({"harness__name": "benchmark_model"}, "harness litert 1 and benchmark_model 1"),
        ({"profile": "quick"}, "profile publish and quick"),
        ({"artifact__target": "onnx-int8"}, "target tflite-int8 and onnx-int8"),
        ({"artifact__name": "resnet18"}, "model mobilenet_v2 and resnet18"),
        ({"device__emulated": True}, "run-b ran on an emulated device"),
        ({"validity": {"ok": False, "reasons": ["throttled", "hot"]}}, "run-b is INVALID (throttled, hot)"),
    ],
)
def test_unlike_runs_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        compare(record("run-a"), record("run-b", **changes))  # type: ignore[arg-type]
    assert caught.value.differences == [said]
    assert caught.value.invalid == ("validity" in changes)
    assert isinstance(caught.value, UsageError)


def test_a_refusal_lists_everything_in_one_line() -> None:
    b = record("run-b", threads=4, power_mode=None, device__emulated=True, device__fingerprint__model="Pi 4")
    with pytest.raises(RefusedError) as caught:
        compare(record("run-a"), b)
    assert len(caught.value.differences) == 4
    assert all(said in str(caught.value) for said in caught.value.differences)
    assert "\n" not in str(caught.value)


def test_across_frees_what_it_names_and_nothing_else() -> None:
    a = record("run-a")
    newer = record("run-b", runtime__version="2.4.0")
    verdict = compare(a, newer, across=["runtime"])
    assert verdict.notes[:-1] == (
        "across runtime ai-edge-litert 2.3.0 and ai-edge-litert 2.4.0",
        "the same artifact twice",
    )
    other = record("run-b", artifact__name="resnet18", artifact__target="onnx", sha256="b" * 64)
    assert compare(a, other, across=["model"]).verdict == "no difference"
    for refused, across in [(newer, ["target"]), (other, ["target"]), (other, ["runtime"])]:
        with pytest.raises(RefusedError):
            compare(a, refused, across=across)
    with pytest.raises(UsageError, match="one of runtime, target, model"):
        compare(a, newer, across=["threads"])


def test_noise_of_repeated_runs() -> None:
    """The deviation of a change is sqrt(2) that of a run, pooled within artifacts; the rest is left out."""
    rng = np.random.default_rng(5)
    a, b = record("run-a"), record("run-b", sha256="b" * 64)
    repeats, logs = [], {}
    for sha, count in (("a", 4), ("c", 3)):
        values = 1.0 + 0.02 * rng.standard_normal(count)
        logs[sha] = np.log(values)
        for i, value in enumerate(values):
            repeats.append(record(f"rep-{sha}{i}", sha256=sha * 64, latency__p50_ms=float(value)))
    freedom = 3 + 2
    variance = sum(((run - run.mean()) ** 2).sum() for run in logs.values()) / freedom
    ignored = [
        record("odd-1", latency__p50_ms=50.0, threads=4),
        record("odd-2", latency__p50_ms=50.0, validity={"ok": False, "reasons": ["hot"]}),
        record("odd-3", latency__p50_ms=50.0, sha256="d" * 64),  # a single run says nothing
        record("odd-4", latency__p50_ms=50.0, runtime__version="1"),
        {**a, "latency": {**a["latency"], "p50_ms": 50.0}},
    ]
    noise = device_noise(a, b, [*repeats, *ignored])
    assert noise.percent == pytest.approx(100 * math.sqrt(2 * variance))
    assert noise.source == "7 stored runs of equal conditions"
    fewer = device_noise(a, b, repeats[:3])
    assert fewer.source == "between the processes of these two runs"


def test_noise_raises_the_threshold() -> None:
    a = record("run-a")
    b = record("run-b", [[int(v * 1.06) for v in run] for run in FLAT])
    repeats = [record(f"rep-{i}", latency__p50_ms=2.0 * (1 + 0.03 * (i % 2))) for i in range(6)]
    assert compare(a, b).verdict == "regression"
    noisy_device = compare(a, b, repeats)
    assert noisy_device.verdict == "no difference"
    assert not any("not known" in note for note in noisy_device.notes)
    assert "5 more stored runs" in compare(a, b, repeats[:4]).notes[-1]
    assert "not known" not in " ".join(compare(a, b, repeats[:5]).notes)
    assert noisy_device.threshold_percent == pytest.approx(3 * noisy_device.noise.percent)
    assert noisy_device.threshold_percent > 6


@pytest.mark.parametrize("between", [0.002, 0.02, 0.1])
def test_identical_runs_are_called_different_in_fewer_than_5_percent(between: float) -> None:
    """200 A/A pairs whose processes differ, alone, with stored repeats, and with runs that differ too."""
    rng = np.random.default_rng(11)
    calls = {"alone": 0, "repeats": 0, "shifted": 0}
    for i in range(200):
        a, b = (noisy(rng, f"run-{name}{i}", between=between) for name in "ab")
        shifts = np.exp(between * rng.standard_normal(7))
        c, d, *repeats = (
            noisy(rng, f"rep-{i}-{j}", between=between / 4, factor=float(shift))
            for j, shift in enumerate(shifts)
        )
        calls["alone"] += compare(a, b).verdict != "no difference"
        calls["repeats"] += compare(a, b, repeats).verdict != "no difference"
        calls["shifted"] += compare(c, d, repeats).verdict != "no difference"
    assert all(called < 10 for called in calls.values()), calls


def test_a_real_change_is_found() -> None:
    rng = np.random.default_rng(12)
    found = sum(
        compare(noisy(rng, "run-a", between=0.005), noisy(rng, "run-b", between=0.005, factor=1.1)).verdict
        == "regression"
        for _ in range(50)
    )
    assert found >= 48


def test_equal_records_have_no_differences() -> None:
    assert differences(record("run-a"), record("run-b", sha256="c" * 64, created="2020-01-01")) == []
