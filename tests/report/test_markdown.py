"""report.md and MODEL_CARD.md against golden files, which EDGEKIT_REFRESH_GOLDEN=1 writes anew."""

import os
import re
from pathlib import Path
from typing import Any

import formats_fixture
import pytest
import report_fixture
from test_html import hostile
from test_schema import minimal

from edgekit.bundle import write_bundle
from edgekit.report import formats
from edgekit.report.card import model_card
from edgekit.report.markdown import code, render_markdown, text

GOLDEN = Path(__file__).parent / "golden"


def compare(name: str, content: str) -> None:
    path = GOLDEN / name
    if os.environ.get("EDGEKIT_REFRESH_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    assert content == path.read_text(encoding="utf-8"), (
        "set EDGEKIT_REFRESH_GOLDEN=1 if this is what you want"
    )


def manifest(directory: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": {"model.tflite": b"TFL3"},
        "name": "mobilenet_v3_large",
        "target": "tflite-int8",
        "inputs": [
            {"name": "image", "shape": [1, 224, 224, 3], "dtype": "int8", "scale": 0.0186, "zero_point": -14}
        ],
        "outputs": [{"name": "logits", "shape": [1, 24], "dtype": "int8", "scale": 0.125, "zero_point": -35}],
        "edgekit_version": "0.1.0",
        "preprocessing": {
            "resolution": 224,
            "resize": 256,
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "labels": [f"class {i}" for i in range(24)],
        "calibration": {
            "name": "embedded calibration",
            "n": 128,
            "sha256": report_fixture.sha("calibration"),
        },
        "weights": report_fixture.report()["provenance"]["weights"],
        "recipe": {"model": "mobilenet_v3_large"},
    }
    return write_bundle(directory, **{**settings, **changes})


def test_report() -> None:
    compare("report.md", render_markdown(report_fixture.report(targets=2)))


def test_failed_report() -> None:
    compare("failed.md", render_markdown(report_fixture.report(fail=True)))


def test_report_of_several_formats() -> None:
    compare("formats.md", render_markdown(formats_fixture.report()))


def test_card_of_two_files(tmp_path: Path) -> None:
    about = manifest(
        tmp_path / "b",
        model={"model.xml": b"<net/>", "model.bin": b"0"},
        target="openvino-int8",
        inputs=[_float("image", [1, 3, 224, 224])],
        outputs=[_float("logits", [1, 24])],
    )
    card = model_card(formats_fixture.report(), "openvino-int8", about)
    compare("MODEL_CARD_openvino.md", card)
    assert 'openvino.Core().compile_model("model.xml", "CPU")' in card and "Signature" not in card


def _float(name: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": "float32", "scale": None, "zero_point": None}


@pytest.mark.parametrize(
    ("target", "file", "line"),
    [
        ("tflite-int8", "model.tflite", 'Interpreter(model_path="model.tflite")'),
        ("onnx-int8", "model.onnx", 'onnxruntime.InferenceSession("model.onnx")'),
        ("openvino-float16", "model.xml", 'openvino.Core().compile_model("model.xml", "CPU")'),
        ("tensorrt-int8", "model.onnx", "trtexec --onnx=model.onnx --int8"),
        ("savedmodel", "saved_model/saved_model.pb", 'tf.saved_model.load("saved_model")'),
    ],
)
def test_the_card_says_how_to_load(target: str, file: str, line: str) -> None:
    language, lines = formats.load(target, file, "serving_default", 'na"me')
    assert any(line in text for text in lines)
    if language == "python":
        compile("\n".join(lines), target, "exec")


def test_the_card_of_an_engine_does_not_claim_that_it_ran(tmp_path: Path) -> None:
    about = manifest(tmp_path / "b", model={"model.onnx": b"x"}, target="tensorrt-int8")
    card = model_card(formats_fixture.report(), "tensorrt-int8", about)
    assert "TensorRT did not run here" in card and "latency: not measured" in card


def test_card(tmp_path: Path) -> None:
    report = report_fixture.report()
    compare("MODEL_CARD.md", model_card(report, "tflite-int8", manifest(tmp_path / "b")))


def test_card_is_honest(tmp_path: Path) -> None:
    report = report_fixture.report(fail=True)
    report["provenance"]["weights"]["untrained"] = True
    artifact = report["artifacts"]["tflite-int8"]
    artifact.update(drift=None, latency=None)
    card = model_card(report, "tflite-int8", manifest(tmp_path / "b", labels=None, rejected=True))
    for words in (
        "UNTRAINED",
        "Rejected.",
        "Do not ship it",
        "accuracy: not measured",
        "latency: not measured",
    ):
        assert words in card
    assert "model.rejected.tflite" in card
    assert "No class names" in card and "generated figures" in card


def test_minimum() -> None:
    assert "None" not in render_markdown(minimal())


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    report = hostile(report_fixture.report(fail=True))
    card = model_card(report, "tflite-int8", manifest(tmp_path / "b", name="<b>`|\n", labels=["<i>"]))
    several = render_markdown(hostile(formats_fixture.report()))
    for page in (render_markdown(report), several, card):
        outside = re.sub(r"`[^`\n]*`", "", page)
        assert not re.search(r"<\w", outside)
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert rows
        for row, above in zip(rows[1:], rows, strict=False):
            cells = len(re.findall(r"(?<!\\)\|", row))
            if re.fullmatch(r"[|\s:-]+", row):
                assert cells == len(re.findall(r"(?<!\\)\|", above))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("mobilenet_v3_large", "mobilenet_v3_large"),
        ("_x_ *y* `z`", r"\_x\_ \*y\* \`z\`"),
        ("a|b\nc", r"a\|b c"),
        ("<img> &amp; [x](y)", r"&lt;img> &amp;amp; \[x\](y)"),
        ("@someone", "&#64;someone"),
        ("https://x.y", "https:&#8203;//x.y"),
    ],
)
def test_text(raw: str, shown: str) -> None:
    assert text(raw) == shown


def test_code_spans_cannot_be_closed() -> None:
    assert code("a`b|c\nd") == "`a'b\\|c d`"
    assert code("") == "` `"
