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
