"""Which runtime is fastest and who agrees with whom: no more is said than was measured."""

from typing import Any

import formats_fixture
import pytest
import report_fixture

from edgekit.report import compare, facts


def rows(**changes: Any) -> dict[str, Any]:
    """A report whose onnx-int8 row is changed."""
    report = formats_fixture.report()
    next(r for r in report["runtimes"] if r["target"] == "onnx-int8").update(changes)
    return report


def test_rows_are_fastest_first_whatever_the_order() -> None:
    report = formats_fixture.report()
    expected = compare.speeds(report)
    report["runtimes"].reverse()
    assert compare.speeds(report) == expected
    assert expected is not None
    assert [r.relative for r in expected.rows][:2] == ["fastest", "1.27×"]
    assert max(r.high or 0.0 for r in expected.rows) == 100


@pytest.mark.parametrize("count", [0, 1])
def test_one_runtime_is_no_race(count: int) -> None:
    report = formats_fixture.report()
    report["runtimes"] = report["runtimes"][:count]
    assert compare.speeds(report) is None
    assert compare.speeds(report_fixture.report()) is None


def test_a_slower_int8_file_is_named() -> None:
    found = compare.speeds(rows())
    assert found is not None
    assert found.slower == (
        "onnx-int8 is slower than its own float in ONNX Runtime 1.31.1: 5.88 ms against 5.02 ms of "
        "onnx-float32 (1.17×).",
    )
    unsure = compare.speeds(rows(p50_low_ms=4.9))
    assert unsure is not None and "though the intervals overlap" in unsure.slower[0]
    faster = compare.speeds(rows(p50_ms=4.0))
    assert faster is not None and faster.slower == ()


def test_a_tie_is_called_a_tie() -> None:
    report = formats_fixture.report()
    report["runtimes"][1].update(p50_low_ms=2.0)
    found = compare.speeds(report)
    assert found is not None and "cannot be told apart" in found.fastest
    report["runtimes"][0].update(artifact=False)
    again = compare.speeds(report)
    assert again is not None and "a float baseline, not one of the artifacts" in again.fastest


def test_settings_that_differ_are_not_called_equal() -> None:
    report = formats_fixture.report()
    found = compare.speeds(report)
    assert found is not None and found.differing == ""
    assert found.held.startswith("1 thread, and where a runtime can be told: precision hint f32")
    assert dict(found.others)["OpenVINO 2026.4.0"] == "NUM_STREAMS 1"
    report["runtimes"][0]["settings"]["INFERENCE_NUM_THREADS"] = 2
    report["runtimes"][3]["settings"]["ENABLE_CPU_PINNING"] = True
    other = compare.speeds(report)
    assert other is not None and "thread" not in other.held
    assert other.differing.startswith("threads (2 threads, 1 thread), pinning (")


def test_colours_follow_the_share_that_differs() -> None:
    report = formats_fixture.report()
    found = compare.agreement(report)
    assert found is not None and found.ok is True
    levels = [[cell.level for cell in row] for row in found.rows]
    assert levels == [[None, 1, 3, 1], [1, None, 3, 0], [3, 3, None, 3], [1, 0, 3, None]]
    assert found.rows[1][3].sqnr == "exact"
    assert found.sentence.startswith(
        "The two that agree least, onnx-int8 and openvino-int8, agree on 98.75 %"
    )
    assert found.differing[0][:2] == ("onnx-int8", "openvino-int8")
    assert found.differing[2][2].endswith(
        "part first at features.1.add (add), SQNR 61.0 dB before and 36.4 dB after it"
    )
    report["agreement"]["min_agreement"] = 99.0
    strict = compare.agreement(report)
    assert strict is not None and strict.ok is False
    assert sum(cell.below for row in strict.rows for cell in row) == 6


def test_full_agreement() -> None:
    report = formats_fixture.report()
    found = report["agreement"]
    found["top1"] = [[100.0] * 4] * 4
    for pair in found["pairs"]:
        pair.update(differ=0, agreement=100.0)
    same = compare.agreement(report)
    assert same is not None and same.differing == ()
    assert same.sentence.startswith("All 4 artifacts give the same answer on all 2,000 images.")
    report["agreement"] = None
    assert compare.agreement(report) is None


def test_many_pairs_are_cut() -> None:
    report = formats_fixture.report()
    report["agreement"]["pairs"] *= 4
    found = compare.agreement(report)
    assert found is not None and (len(found.differing), found.more) == (compare.PAIRS_SHOWN, 8)


def test_short_names_are_unique() -> None:
    several, single = formats_fixture.report(), report_fixture.report(targets=2)
    assert facts.short(several, "onnx-int8") == "onnx-int8"
    assert facts.float_name(several, "onnx-int8") == "onnx-float32"
    assert facts.short(single, "tflite-int8") == "int8"
    assert facts.float_name(single, "tflite-int8") == "float32"
    single["artifacts"]["tflite-int8"]["latency"]["float_target"] = "tflite-float32"
    assert facts.float_name(single, "tflite-int8") == "float32"
    several["artifacts"] = {"savedmodel": several["artifacts"]["onnx-int8"]}
    assert facts.short(several, "savedmodel") == "savedmodel"


def test_float_size_is_of_the_same_format() -> None:
    report = formats_fixture.report()
    ours = report["artifacts"]["onnx-int8"]
    del ours["float_size_bytes"]
    report["artifacts"]["tflite-float32"] = {**ours, "size_bytes": 1}
    assert facts.float_size(report, "onnx-int8") == (report["cost"]["params"] * 4, "float32 weights")
    report["artifacts"]["onnx-float32"] = {**ours, "size_bytes": 2}
    assert facts.float_size(report, "onnx-int8") == (2, "float32 file")
    ours.update(float_size_bytes=3)
    ours["latency"]["float_target"] = "openvino-float16"
    assert facts.float_size(report, "onnx-int8") == (3, "float16 file")
    assert facts.size_figure(report, "onnx-int8").comparison.endswith("than float16")


def test_a_gate_over_all_counts_for_each() -> None:
    report = formats_fixture.report()
    assert len(facts.gates_of(report, "onnx-int8")) == 6
    report["gates"][-1]["ok"] = False
    assert facts.verdict(report, "onnx-int8").ok is False
