"""The contract accepts what a build writes and refuses what it must not write."""

import copy
import json
from collections.abc import Callable
from typing import Any

import formats_fixture
import jsonschema
import pytest
import report_fixture

from edgekit.errors import ReportError
from edgekit.report import SCHEMA_VERSION, validate
from edgekit.report.schema import schema

Report = dict[str, Any]


def minimal() -> Report:
    """Nothing but the required keys."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": "m",
        "weights": "as given",
        "data": "given",
        "stages": [],
        "cost": {"params": 1, "macs": 2, "mem_bytes": 3, "peak_activation_bytes": 4},
        "artifacts": {
            "tflite-int8": {
                "path": "tflite-int8/model.tflite",
                "sha256": "0" * 64,
                "size_bytes": 10,
                "audit": {
                    "int8_ops_share": 1.0,
                    "float_ops": 0,
                    "partitions": None,
                    "transposes": 0,
                    "undelegated_ops": None,
                    "input_dtype": "int8",
                    "output_dtype": "int8",
                },
            }
        },
        "gates": [],
    }


def test_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("options", [{}, {"targets": 2}, {"fail": True}, {"targets": 0}])
def test_accepts(options: dict[str, Any]) -> None:
    report = report_fixture.report(**options)
    validate(report)
    validate(json.loads(json.dumps(report)))


def test_accepts_the_minimum_and_unknown_keys() -> None:
    report = minimal()
    validate(report)
    report["later"] = {"anything": 1}
    report["artifacts"]["tflite-int8"]["audit"]["kinds"] = {"int8": 3}
    report["artifacts"]["tflite-int8"].update(drift=None, latency=None, fidelity=None)
    validate(report)


def _set(*path: Any, value: Any) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    return change


def _drop(*path: Any) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        for key in path[:-1]:
            report = report[key]
        del report[path[-1]]

    return change


INT8 = ("artifacts", "tflite-int8")
BROKEN = {
    "version": (_set("schema_version", value=2), "schema_version"),
    "no gates": (_drop("gates"), "gates"),
    "no model": (_set("model", value=""), "model"),
    "params": (_set("cost", "params", value=1.5), "cost.params"),
    "negative seconds": (_set("stages", 0, "seconds", value=-1), "stages[0].seconds"),
    "cached as text": (_set("stages", 0, "cached", value="yes"), "stages[0].cached"),
    "short hash": (_set(*INT8, "sha256", value="abc"), "sha256"),
    "share above one": (_set(*INT8, "audit", "int8_ops_share", value=1.5), "int8_ops_share"),
    "no partitions": (_drop(*INT8, "audit", "partitions"), "partitions"),
    "accuracy above 100": (_set(*INT8, "drift", "artifact", value=931.0), "drift.artifact"),
    "drift without interval": (_drop(*INT8, "drift", "ci_low"), "ci_low"),
    "interval upside down": (_set(*INT8, "drift", "ci_low", value=9.0), "ci_low"),
    "p90 below p50": (_set(*INT8, "latency", "p90_ms", value=0.1), "latency"),
    "nan": (_set(*INT8, "drift", "sqnr_db", value=float("nan")), "drift.sqnr_db"),
    "infinite sample": (_set(*INT8, "latency", "samples", "float_ms", value=[float("inf")]), "float_ms"),
    "place": (_set(*INT8, "layers", 0, "where", value="gpu"), "layers[0].where"),
    "gate of nothing": (_set("gates", 0, "target", value="onnx-int8"), "gates[0].target"),
    "verdict": (_set("verdict", value="rejected"), "verdict"),
    "target leaves": (lambda r: r["artifacts"].update({"../up": r["artifacts"]["tflite-int8"]}), "artifacts"),
    "part without name": (_drop(*INT8, "quantize", "parts", 0, "name"), "name"),
}


SEVERAL = {
    "row without target": (_drop("runtimes", 0, "target"), "target"),
    "artifact not built": (_set("runtimes", 0, "target", value="onnx-float32"), "runtimes[0].target"),
    "runtime p90 below p50": (_set("runtimes", 1, "p90_ms", value=0.1), "runtimes[1]"),
    "runtime interval": (_set("runtimes", 1, "p50_low_ms", value=9.0), "runtimes[1]"),
    "nested setting": (_set("runtimes", 0, "settings", "x", value={}), "settings.x"),
    "matrix too small": (lambda r: r["agreement"]["top1"].pop(), "agreement.top1"),
    "ragged matrix": (lambda r: r["agreement"]["sqnr_db"][2].pop(), "agreement.sqnr_db"),
    "diagonal": (_set("agreement", "top1", 1, 1, value=99.0), "agreement.top1[1][1]"),
    "not symmetric": (_set("agreement", "top1", 1, 0, value=9.0), "agreement.top1[1][0]"),
    "strange pair": (_set("agreement", "pairs", 0, "a", value="core-ml"), "agreement.pairs[0].a"),
    "over 100": (_set("agreement", "top1", 1, 0, value=101), "top1"),
    "divergence without op": (_drop("agreement", "pairs", 0, "divergence", "op"), "op"),
    "kinds": (_set("artifacts", "onnx-int8", "audit", "executed", "kinds", "int8", value=-1), "int8"),
    "gate of nothing": (_set("gates", 0, "target", value="every"), "gates[0].target"),
}


@pytest.mark.parametrize("target", [None, "all", "onnx-int8"])
def test_accepts_gates_over_several_artifacts(target: str | None) -> None:
    report = formats_fixture.report()
    report["gates"][-1]["target"] = target
    validate(json.loads(json.dumps(report)))


@pytest.mark.parametrize("case", SEVERAL)
def test_refuses_with_several_formats(case: str) -> None:
    change, place = SEVERAL[case]
    report = formats_fixture.report()
    change(report)
    with pytest.raises(ReportError) as error:
        validate(report)
    assert place in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("case", BROKEN)
def test_refuses(case: str) -> None:
    change, place = BROKEN[case]
    report = copy.deepcopy(report_fixture.report())
    change(report)
    with pytest.raises(ReportError) as error:
        validate(report)
    assert str(error.value).startswith("report.json: ")
    assert place in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
