"""report.html as text: complete, self-contained, and nothing from outside gets out of its quotes."""

import copy
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import formats_fixture
import pytest
import report_fixture
from test_schema import minimal

from edgekit.errors import ReportError
from edgekit.report.html import picture, render_html

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\n& é"
VOID = {"meta", "img", "br", "wbr", "circle", "path", "input", "link", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text; checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_html(report_fixture.report()))


def test_says_what_matters_first(page: Page) -> None:
    text = page.text
    order = ["Ready to ship All 5", "4.39", "93.2", "float 93.5 %", "3.06", "1,100 runs", "Error by layer"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    joined = re.sub(r"([._]) (?=\S)", r"\1", text)  # names may break at their joints
    for words in ("−0.15 to 0.75", "2.1× faster than float", "GPTQ", "SOFTMAX at softmax", "features.1.add"):
        assert words in joined


@pytest.mark.parametrize("options", [{}, {"targets": 2}, {"fail": True}, None])
def test_is_self_contained(options: dict[str, Any] | None) -> None:
    made = formats_fixture.report() if options is None else report_fixture.report(**options)
    html = render_html(made)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for _tag, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith(("data:image/", "#"))
    assert not re.search(r"url\(|@import|https?:", html.split("</style>")[0])
    assert "default-src 'none'" in html


def hostile(value: Any) -> Any:
    """Every free text of a report made hostile."""
    kept = {"verdict", "where", "sha256", "image", "path", "created"}
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            if key in kept:
                out[key] = item
            elif key in ("artifacts", "versions", "by_op", "settings", "kinds"):
                names = {k: f"{k}{HOSTILE}" if key != "artifacts" else k for k in item}
                out[key] = {names[k]: hostile(v) for k, v in item.items()}
            elif key == "files":
                out[key] = {f"{k}{HOSTILE}": v for k, v in item.items()}
            elif key == "target":
                out[key] = item if isinstance(item, str) else hostile(item)
            else:
                out[key] = hostile(item)
        return out
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


@pytest.mark.parametrize("make", [lambda: report_fixture.report(targets=2), formats_fixture.report])
def test_hostile_names_stay_text(make: Callable[[], dict[str, Any]]) -> None:
    html = render_html(hostile(make()))
    page = Page(html)
    assert "script" not in page.tags
    assert all(not name.startswith("on") for _tag, name, _value in page.attributes)
    assert {
        src for tag, name, src in page.attributes if tag == "img" and name == "src" and src == "x"
    } == set()
    assert "{{ 7*7 }}" in page.text
    assert "<script>alert(1)</script>" in page.text.replace("/ ", "/").replace(" /", "/")


def strip_optional(report: dict[str, Any]) -> None:
    for key in ("created", "verdict", "machine", "versions", "provenance"):
        del report[key]


def without(*keys: str) -> dict[str, Any]:
    report = report_fixture.report()
    for key in keys:
        report["artifacts"]["tflite-int8"][key] = [] if key in ("layers", "flipped") else None
    return report


def unlabelled() -> dict[str, Any]:
    report = report_fixture.report()
    artifact = report["artifacts"]["tflite-int8"]
    artifact["drift"].update(
        metric="agreement", reference=None, artifact=None, drop=None, ci_low=None, ci_high=None, p_value=None
    )
    for row in artifact["flipped"]:
        row.update(label=None, image=None)
    return report


def few_samples() -> dict[str, Any]:
    report = report_fixture.report()
    report["artifacts"]["tflite-int8"]["latency"]["samples"] = {"artifact_ms": [3.0, 3.0], "float_ms": []}
    report["artifacts"]["tflite-int8"]["latency"].update(p99_ms=None, float_p50_ms=None)
    return report


def bare_layers() -> dict[str, Any]:
    report = report_fixture.report()
    report["artifacts"]["tflite-int8"]["layers"] = [{"name": "a", "op": "conv2d"}, {"name": "", "op": ""}]
    return report


SPARSE = {
    "minimum": (minimal, "not measured"),
    "no artifact": (lambda: report_fixture.report(targets=0), "No artifact was built"),
    "no latency": (lambda: without("latency"), "the latency stage did not run"),
    "no drift": (lambda: without("drift"), "no evaluation images"),
    "no layers": (lambda: without("layers"), "Ready to ship"),
    "no parts, fidelity or flips": (lambda: without("quantize", "fidelity", "flipped"), "Ready to ship"),
    "no labels": (unlabelled, "same answer as float (no labels)"),
    "few samples": (few_samples, "3.06"),
    "bare layers": (bare_layers, "2 layers, in order"),
}


@pytest.mark.parametrize("case", SPARSE)
def test_renders_what_is_there(case: str) -> None:
    make, words = SPARSE[case]
    page = Page(render_html(make()))
    assert words in page.text
    assert "None" not in re.sub(r"(?i)not none", "", page.text)
    assert "nan" not in page.text.split()


def test_failed_gates_come_with_reason_and_cure() -> None:
    text = Page(render_html(report_fixture.report(fail=True))).text
    assert "Rejected 2 of 5 gates failed: drift, delegation." in text
    assert text.index("Try: turn on GPTQ") < text.index("Size")


def test_a_remark_is_shown_and_decides_nothing() -> None:
    report = report_fixture.report()
    report["gates"][4] |= {"judged": False, "detail": "2 operators outside; not judged: it is off"}
    text = Page(render_html(report)).text
    assert "All 4 gates passed. 1 more was found and not judged." in text
    assert text.index("remark 2 operators outside") > text.index("A gate that fails stops the build")
    report["gates"][4]["ok"] = False
    with pytest.raises(ReportError, match="a remark that failed"):
        render_html(report)


def test_several_formats() -> None:
    text = re.sub(r"([._/-]) (?=\S)", r"\1", Page(render_html(formats_fixture.report())).text)
    order = ["All 21 gates passed", "Which runtime is fastest", "Do the artifacts agree", "target 1 of 4"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    for words in (
        "OpenVINO 2026.4.0 with openvino-int8 is fastest: 2.41 ms median; tflite-int8 takes 1.27× as long.",
        "Held equal: 1 thread",
        "onnx-int8 is slower than its own float in ONNX Runtime 1.31.1",
        "2.1× faster than tflite-float32",
        "1.2× slower than onnx-float32",
        "the graph that OpenVINO executes",
        "for TensorRT on an NVIDIA GPU; not timed on this host",
        "140 executed in int8 2 executed in float",
        "118 int8, 4 float, 3 convert",
        "openvino-int8/model.bin",
    ):
        assert words in text
    assert text.count("delegate partitions") == 1


def test_a_float_file_is_not_blamed_for_being_float() -> None:
    report = formats_fixture.report()
    artifact = report["artifacts"].pop("onnx-int8")
    artifact["audit"].update(int8_ops_share=0.0, undelegated_ops=[])
    artifact["latency"]["float_target"] = "onnx-float32"
    report["artifacts"]["onnx-float32"] = artifact
    report["gates"] = []
    report["runtimes"] = []
    text = Page(render_html(report)).text
    assert "the float baseline itself" in text and "than onnx-float32" not in text
    assert text.count("In float:") == 2


def test_untrained_is_loud() -> None:
    report = report_fixture.report()
    report["provenance"]["weights"].update(untrained=True)
    html = render_html(report)
    assert "UNTRAINED" in Page(html).text[:400]
    assert "Ready to ship" not in Page(html).text
    trained = render_html(report_fixture.report())
    assert "UNTRAINED" not in Page(trained).text


def test_pictures_only_from_inside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "build", tmp_path / "secret.png"
    inside.mkdir()
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 10
    outside.write_bytes(png)
    (inside / "ok.png").write_bytes(png)
    (inside / "text.png").write_bytes(b"root:x:0:0")
    (inside / "link.png").symlink_to(outside)
    good = picture("ok.png", inside)
    assert good is not None and good.startswith("data:image/png;base64,")
    for name in (
        "../secret.png",
        str(outside),
        "text.png",
        "link.png",
        "missing.png",
        "",
        "a\0b",
        "x" * 5000,
    ):
        assert picture(name, inside) is None
    assert picture("ok.png", None) is None
    for uri in (
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,AA" onload="x',
        "data:image/png;base64,AAAA\n",
        "https://example.org/a.png",
        "javascript:alert(1)",
    ):
        assert picture(uri, inside) is None


def test_a_broken_report_is_refused() -> None:
    report = copy.deepcopy(report_fixture.report())
    del report["cost"]
    with pytest.raises(ReportError, match="cost"):
        render_html(report)
