"""The benchmarks' bars and tables, on canned numbers: nothing is built or measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "bars.py"


@pytest.fixture(scope="module")
def bars():
    spec = importlib.util.spec_from_file_location("edgekit_benchmark_bars", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def latency_row(model="mobilenet_v3_large", **changes):
    row = {
        "model": model,
        "edgekit": {"partitions": 1, "transposes": 0, "sqnr_db": 10.0},
        "peer": {"partitions": 22, "transposes": 1, "sqnr_db": 9.5},
        "ratios": {"int8_float": 0.50, "int8_peer_float": 0.52, "int8_peer_int8": 0.37},
        "build": {"same_run": True, "int8_ratio": 0.4, "float_ratio": 0.3},
    }
    for path, value in changes.items():
        outer, inner = path.split("__")
        row[outer][inner] = value
    return row


def failed(checks):
    return [check.what for check in checks if not check.ok]


def test_a_row_within_every_bar_passes(bars):
    checks = bars.latency_checks(latency_row())
    assert len(checks) == 6
    assert failed(checks) == []


@pytest.mark.parametrize(
    ("change", "value", "what"),
    [
        ("ratios__int8_float", 0.54, "int8 / fastest float latency"),
        (
            "ratios__int8_peer_float",
            0.54,
            "int8 / fastest float latency",
        ),  # a slow float of our own hides nothing
        ("ratios__int8_peer_int8", 0.39, "int8 / peers' int8 latency"),
        ("edgekit__partitions", 2, "partitions"),
        ("edgekit__partitions", 0, "partitions"),
        ("edgekit__sqnr_db", 9.4, "SQNR above peers', dB"),
        ("build__int8_ratio", 0.6, "int8 build / peers'"),
        ("build__float_ratio", 0.34, "float build / peers'"),
    ],
)
def test_each_bar_is_seen_alone(bars, change, value, what):
    assert failed(bars.latency_checks(latency_row(**{change: value}))) == [what]


def test_build_seconds_count_only_when_both_were_timed_in_one_run(bars):
    row = latency_row(build__int8_ratio=9.0, build__same_run=False)
    assert failed(bars.latency_checks(row)) == []


def test_shufflenet_may_hold_no_transpose(bars):
    row = latency_row(
        "shufflenet_v2_x1_0", edgekit__transposes=1, ratios__int8_float=0.3, ratios__int8_peer_float=0.3
    )
    assert failed(bars.latency_checks(row)) == ["TRANSPOSE"]


def accuracy_row(**plain):
    figures = {"sqnr_db": 20.0, "agreement": 98.0, "drop": 0.4} | plain
    stressed = {"sqnr_db": 19.6, "agreement": 97.0, "drop": 0.9}
    return {
        "model": "mobilenet_v3_large",
        "edgekit": {"fast": figures},
        "peer": {"sqnr_db": 15.0},
        "robustness": {kind: {"edgekit": {"fast": dict(stressed)}} for kind in ("rescaled", "noise")},
    }


def test_accuracy_bars(bars):
    checks = bars.accuracy_checks(accuracy_row())
    assert len(checks) == 5
    assert failed(checks) == []
    worse = accuracy_row(sqnr_db=18.0, agreement=96.9, drop=1.1)
    worse["robustness"]["noise"]["edgekit"]["fast"]["sqnr_db"] = 17.4
    worse["robustness"]["rescaled"]["edgekit"]["fast"]["drop"] = 1.2
    assert failed(bars.accuracy_checks(worse)) == [
        "fast: SQNR above peers', dB",
        "fast: agreement, %",
        "fast: top-1 drop, points",
        "fast, rescaled: points lost",
        "fast, noise: dB lost",
    ]


def test_robustness_rows_without_a_profile_are_left_out(bars):
    row = accuracy_row()
    row["edgekit"]["thorough"] = dict(row["edgekit"]["fast"])
    assert [c.what for c in bars.accuracy_checks(row) if c.what.startswith("thorough,")] == []


def runtime_row(model="resnet18", *, openvino=0.97, onnx=0.85, over_float=0.6, slower=()):
    ratios = {"openvino_peer": openvino, "onnx_peer": onnx, "onnx_float": over_float}
    intervals = {key: (value, value - 0.01, value + 0.01) for key, value in ratios.items()}
    return {"model": model, "ratios": intervals, "slower": list(slower)}


def test_geometric_mean_weighs_factors_alike(bars):
    assert bars.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert bars.geometric_mean([0.9]) == pytest.approx(0.9)


def test_runtimes_are_held_by_their_mean_and_by_the_worst_network(bars):
    checks = bars.runtime_latency_checks([runtime_row("a"), runtime_row("b", openvino=0.98)])
    assert len(checks) == 6
    assert failed(checks) == []
    assert checks[0].model == "all 2"
    assert checks[0].value == pytest.approx((0.97 * 0.98) ** 0.5)
    one_slow = bars.runtime_latency_checks([runtime_row("a", openvino=0.80), runtime_row("b", openvino=1.06)])
    assert [(c.model, c.what) for c in one_slow if not c.ok] == [("b", "openvino-int8 / NNCF latency")]
    all_slow = bars.runtime_latency_checks([runtime_row(openvino=1.0, onnx=0.9)])
    assert failed(all_slow) == [
        "openvino-int8 / NNCF latency, geometric mean",
        "onnx-int8 / quantize_static latency, geometric mean",
    ]
    assert bars.runtime_latency_checks([]) == []


@pytest.mark.parametrize(
    ("slower", "bar"),
    [
        ((), ["onnx-int8 slower than float32, unsaid"]),
        (("openvino-int8 is slower than its own float",), ["onnx-int8 slower than float32, unsaid"]),
        (("onnx-int8 is slower than its own float",), []),
    ],
)
def test_int8_may_lose_to_float_only_when_the_report_says_so(bars, slower, bar):
    assert failed(bars.runtime_latency_checks([runtime_row(over_float=1.1, slower=slower)])) == bar


def quality_row(agree=(99.0, 99.4, 100.0), **sqnr):
    decibels = {"openvino-int8": 20.0, "nncf": 19.0, "onnx-int8": 20.0, "quantize_static": 15.0} | sqnr
    names = ("tflite-int8", "onnx-int8", "openvino-int8")
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    return {
        "model": "mobilenet_v2",
        "weights": "trained",
        "files": {name: {"sqnr_db": db, "agreement": 80.0 + db / 2} for name, db in decibels.items()},
        "pairs": [
            {"first": first, "second": second, "agreement": percent}
            for (first, second), percent in zip(pairs, agree, strict=True)
        ],
    }


def test_runtime_quality_bars(bars):
    checks = bars.runtime_quality_checks([quality_row()])
    assert len(checks) == 6
    assert failed(checks) == []
    assert {check.model for check in checks} == {"mobilenet_v2, trained"}
    assert failed(bars.runtime_quality_checks([quality_row(nncf=20.1)])) == [
        "openvino-int8 and nncf: SQNR above, dB",
        "openvino-int8 and nncf: agreement above, points",
    ]
    assert failed(bars.runtime_quality_checks([quality_row(quantize_static=20.1)])) == [
        "onnx-int8 and quantize_static: SQNR above, dB"
    ]
    assert failed(bars.runtime_quality_checks([quality_row((99.0, 98.8, 99.0))])) == [
        "tflite-int8 and openvino-int8 agree, %"
    ]


def test_export_is_held_at_its_first_and_at_a_warm_call(bars):
    assert bars.export_checks(None) == []
    checks = bars.export_checks({"model": "mobilenet_v3_large", "ratios": {"first": 0.33, "warm": 0.34}})
    assert failed(checks) == ["ONNX export / torch.onnx.export, warm call"]


def test_table_pads_columns_and_aligns_numbers_right(bars):
    text = bars.table(("model", "ms"), [("a", "1.50"), ("resnet18", "12.25")])
    assert text.splitlines() == [
        "| model    |    ms |",
        "| -------- | ----: |",
        "| a        |  1.50 |",
        "| resnet18 | 12.25 |",
    ]
    assert bars.table(("model",), []).splitlines() == ["| model |", "| ----- |"]


def test_check_table_says_pass_or_fail(bars):
    lines = bars.check_table(
        [bars.Check("m", "x", 0.5, "<=", 0.53), bars.Check("m", "y", 2, "==", 1)]
    ).splitlines()
    assert lines[2].split("|")[3:6] == [f"{'0.50':>9} ", " <= 0.53 ", " pass     "]
    assert "**FAIL**" in lines[3]
