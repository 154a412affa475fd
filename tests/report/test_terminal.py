"""The terminal: what a person reads while and after a build."""

import io
from dataclasses import dataclass

import formats_fixture
import pytest
import report_fixture
from rich.console import Console
from test_html import hostile
from test_schema import minimal

from edgekit.report import terminal
from edgekit.report.inspect import print_audit
from edgekit.report.terminal import Progress, models_table, print_summary
from edgekit.targets import words_of


def console(width: int = 100, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False)


def printed(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def test_a_remark_has_a_mark_of_its_own() -> None:
    out, report = console(), report_fixture.report()
    report["gates"][4] |= {"judged": False, "detail": "2 operators outside; not judged: it is off"}
    print_summary(report, "build/m", out)
    assert "-  delegation" in printed(out) and "not judged: it is off" in printed(out)


def test_summary() -> None:
    out = console()
    print_summary(report_fixture.report(), "build/m", out)
    text = printed(out)
    for words in (
        "4.39 MB, 3.9× smaller than float",
        "top-1 93.2 %, drop 0.30 points (−0.15 to 0.75)",
        "top-1 93.5 % (2,000 images)",
        "3.06 / 3.14 / 3.47 ms, 2.1× faster than float",
        "6.30 / 6.48 / 7.17 ms",
        "1, 1 operator outside",
        "✓  fidelity",
        "✓ Ready to ship. All 5 gates passed.",
        "build/m/tflite-int8/model.tflite",
        "build/m/report.html",
    ):
        assert words in text


def test_failed_summary_says_what_to_try() -> None:
    out = console()
    print_summary(report_fixture.report(targets=2, fail=True), "b", out)
    text = printed(out)
    assert "✗ Rejected. 2 of 10 gates failed" in text
    assert "try: turn on GPTQ" in text
    assert "tflite-float16" in text


def test_untrained_and_sparse_summaries() -> None:
    report = report_fixture.report()
    report["weights"] = "random"
    out = console()
    print_summary(report, "b", out)
    assert "UNTRAINED" in printed(out)
    for sparse in (minimal(), report_fixture.report(targets=0)):
        print_summary(sparse, "b", console())


def test_summary_of_several_formats() -> None:
    out = console(120)
    print_summary(formats_fixture.report(), "b", out)
    text = printed(out)
    for words in (
        "openvino-int8      OpenVINO 2026.4.0     2.41 ms   2.52 ms   2.93 ms   fastest",
        "onnx-int8 is slower than its own float in ONNX Runtime 1.31.1",
        "held equal: 1 thread",
        "onnx-int8 and openvino-int8: 25 of 2,000 answers differ",
        "98.75 %",
        "3.06 / 3.14 / 3.47 ms    2.1× faster",
    ):
        assert words in text
    assert [line.split()[0] for line in text.splitlines() if line.rstrip().endswith(("fastest", "×"))] == [
        row["target"] for row in formats_fixture.runtimes()
    ]
    print_summary(hostile(formats_fixture.report()), "b", console(40))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_markup_in_names_is_text(width: int) -> None:
    report = hostile(report_fixture.report())
    report["model"] = "[red]x[/red][bold"
    report["gates"][0]["detail"] = "[/no such tag]"
    out = console(width)
    print_summary(report, "[b]", out)
    assert "[red]x[/red]" in printed(out)
    assert "[/no such tag]" in printed(out).replace("\n", "") or width == 40


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(terminal: bool) -> None:
    out = console(terminal=terminal)
    with Progress(out) as progress:
        with progress.stage("capture") as line:
            line.advance(1, 4)
            line.advance(0, 0)
        with progress.stage("quantize") as line:
            line.cached = True
        with pytest.raises(ValueError), progress.stage("[lower]"):
            raise ValueError
    text = printed(out)
    assert "✓ capture" in text.replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert text.count("cached") == 1
    assert "[lower]" in text and "stopped" in text


def test_audit() -> None:
    audit = {
        "size_bytes": 4_386_220,
        "int8_ops_share": 0.9,
        "int8_macs_share": 1.0,
        "table_ops": 2,
        "macs": 217_000_000,
        "float_ops": ("EXP at [head]",),
        "dynamic_ops": (),
        "transposes": (),
        "histogram": {"CONV_2D": 2, "EXP": 1},
        "inputs": (
            {"name": "image", "dtype": "int8", "shape": (1, 8, 8, 3), "scale": 0.018, "zero_point": -14},
        ),
        "outputs": (
            {"name": "logits", "dtype": "float32", "shape": (1, 24), "scale": None, "zero_point": None},
        ),
        "per_channel_share": 1.0,
        "ops": (
            {"index": 0, "op": "CONV_2D", "kind": "int8", "module": "a.b", "macs": 9, "weight_bytes": 100},
            {"index": 1, "op": "CONV_2D", "kind": "int8", "module": "a.c", "macs": 9, "weight_bytes": 100},
            {"index": 2, "op": "EXP", "kind": "float", "module": "[head]", "macs": 0, "weight_bytes": 0},
        ),
        "signatures": ("serving_default",),
    }
    delegation = {"partitions": 2, "undelegated_ops": ["EXP at [head]"], "runtime": "LiteRT 2.3.0"}
    out = console()
    print_audit(audit, "model.tflite", words_of("litert"), delegation=delegation, console=out)
    text = printed(out)
    for words in (
        "4.39 MB",
        "90.0 % of operators, 100 % of MACs",
        "1 x 8 x 8 x 3",
        "0.018",
        "-14",
        "LiteRT 2.3.0",
    ):
        assert words in text
    assert "in float: 1" in text and "EXP at [head]" in text and "outside the delegate: 1" in text
    least = {"int8_ops_share": 0.0, "float_ops": 3, "transposes": 0}
    print_audit(least, "m", words_of("litert"), console=console())


@pytest.mark.parametrize(("file", "runtime"), [("model.onnx", "onnxruntime"), ("model.xml", "openvino")])
def test_audit_of_an_executed_graph(file: str, runtime: str) -> None:
    audit = {
        "int8_ops_share": 0.5,
        "float_ops": ("Softmax at head",),
        "transposes": ("a", "b"),
        "kinds": {"int8": 1, "float": 1, "convert": 2},
        "histogram": {"QLinearConv": 1, "Softmax": 1},
        "ops": (),
    }
    delegation = {"partitions": 1, "undelegated_ops": ["Softmax at head"], "runtime": "onnxruntime 1.31.1"}
    out = console()
    print_audit(audit, file, words_of(runtime), delegation=delegation, console=out)
    text = printed(out)
    for words in (
        "1 int8, 1 float, 2 convert",
        "ONNX Runtime 1.31.1",
        "layout changes: 2",
        "operators executed",
    ):
        assert words in text
    assert "in float where the file asks for int8: 1" in text
    assert "delegate" not in text and "partitions" not in text


@dataclass
class Row:
    name: str = "mobilenet_v3_large[x]"
    source: str = "torchvision"
    params: int = 5_483_032
    gmacs: float = 0.2166
    resolution: int = 224
    weights: str = "reference"


def test_models_table() -> None:
    out = console()
    models_table([Row()], out)
    assert "mobilenet_v3_large[x]" in printed(out) and "5.48 M" in printed(out) and "0.217" in printed(out)


def test_a_line_says_how_long_is_left(monkeypatch):
    """From the pace since its first share: what was there before (a resumed training) took no time of it."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: now[0])
    line = terminal.Line("train")
    line.advance(40, 100)
    assert line.left(now[0]) is None
    now[0] = 130.0
    line.advance(50, 100)
    assert line.left(now[0]) == pytest.approx(150.0)
    line.advance(99, 100)
    assert line.left(now[0]) is None  # less than ten seconds
    line.advance(0, 10)
    assert line.left(now[0]) is None
