"""A bundle is written whole, proves itself, and no name from outside leaves its directory."""

import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import check_bundle, pack, safe_name, unpack, write_bundle
from edgekit.bundle.names import inside, one_line
from edgekit.errors import ArtifactError, StoreError

SETTINGS = {
    "resolution": 8,
    "resize": 10,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}
SCALE, ZERO = 4 / 255, -1


def quantized(picture: np.ndarray) -> np.ndarray:
    """The preprocessing of the manifest, for pictures that need no resize."""
    real = (picture[None].astype(np.float64) / 255 - 0.5) / 0.25
    return np.clip(np.round(real / SCALE) + ZERO, -128, 127).astype(np.int8)


def model_of(_file: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Stands in for a runtime: the means of six pieces of the picture."""
    return [np.stack([piece.mean() for piece in np.array_split(inputs[0].ravel(), 6)])[None].astype(np.int8)]


def settings(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    golden = []
    for _ in range(3):
        picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        inputs = [quantized(picture)]
        golden.append({"image": picture, "inputs": inputs, "outputs": model_of(Path(), inputs)})
    return {
        "model": {"model.tflite": b"\x1c\x00\x00\x00TFL3 not really"},
        "name": "tiny",
        "target": "tflite-int8",
        "inputs": [
            {"name": "image", "shape": (1, 8, 8, 3), "dtype": "int8", "scale": SCALE, "zero_point": ZERO}
        ],
        "outputs": [{"name": "logits", "shape": (1, 6), "dtype": "int8", "scale": 0.5, "zero_point": 3}],
        "edgekit_version": "0.1.0",
        "preprocessing": SETTINGS,
        "labels": ["disc", "ring", "star", "a", "b", "c"],
        "golden": golden,
        "calibration": {"name": "embedded", "n": 8, "sha256": "0" * 64},
        "recipe": {"model": "tiny"},
        **changes,
    }


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_round_trip(tmp_path: Path) -> None:
    place = tmp_path / "out" / "tflite-int8"
    manifest = write_bundle(place, **settings(card=lambda m: f"# {m['name']}\n", extra={"flipped.png": b"p"}))
    assert json.loads((place / "manifest.json").read_text()) == manifest
    assert (place / "MODEL_CARD.md").read_text() == "# tiny\n"
    assert (place / "labels.txt").read_text().split("\n") == ["disc", "ring", "star", "a", "b", "c", ""]
    assert manifest["inputs"][0]["scale"] == SCALE and manifest["outputs"][0]["zero_point"] == 3
    assert "flipped.png" not in manifest["files"] and (place / "flipped.png").exists()
    words = [step["step"] for step in manifest["preprocessing"]["steps"]]
    assert words == ["rgb", "resize", "center_crop", "scale", "normalize", "layout", "quantize"]
    seen = []
    check = check_bundle(
        place, lambda file, inputs: seen.append(file) or model_of(file, inputs), lambda p, _m: quantized(p)
    )
    assert check.problems == []
    assert (check.files, check.vectors) == (12, 3)
    assert check.input_lsb == check.output_lsb == [0.0, 0.0, 0.0]
    assert seen[0] == (place / "model.tflite").resolve()
    assert [p.name for p in tmp_path.joinpath("out").iterdir()] == ["tflite-int8"]


def test_same_input_same_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", **settings())
    write_bundle(tmp_path / "b", **settings())
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_top5_is_dequantized_and_ties_keep_their_order(tmp_path: Path) -> None:
    outputs = [np.array([[5, 9, 9, -3, 7, 0]], np.int8)]
    golden = [{"inputs": [np.zeros((1, 8, 8, 3), np.int8)], "outputs": outputs}]
    write_bundle(tmp_path / "b", **settings(golden=golden, labels=None))
    top = json.loads((tmp_path / "b/golden/top5.json").read_text())[0]["top5"]
    assert [(row["index"], row["value"]) for row in top] == [
        (1, 3.0),
        (2, 3.0),
        (4, 2.0),
        (0, 1.0),
        (5, -1.5),
    ]
    assert {row["label"] for row in top} == {None}
    assert check_bundle(tmp_path / "b").ok


def test_rejected_says_so_in_its_name(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "b", **settings(rejected=True))
    assert manifest["verdict"] == "rejected"
    assert (tmp_path / "b/model.rejected.tflite").exists() and not (tmp_path / "b/model.tflite").exists()
    write_bundle(tmp_path / "b", **settings())
    assert not (tmp_path / "b/model.rejected.tflite").exists()


def test_a_model_of_several_files_keeps_them_together(tmp_path: Path) -> None:
    model = {"model.xml": b"<net/>", "model.bin": b"weights"}
    manifest = write_bundle(tmp_path / "b", **settings(model=model, rejected=True))
    assert manifest["file"] == "model.rejected.xml" and manifest["size_bytes"] == 13
    assert (tmp_path / "b/model.rejected.bin").read_bytes() == b"weights"
    assert check_bundle(tmp_path / "b").ok
    (tmp_path / "b/model.rejected.bin").write_bytes(b"other")
    assert not check_bundle(tmp_path / "b").ok
    folder = {"saved_model/saved_model.pb": b"graph"}
    assert write_bundle(tmp_path / "b", **settings(model=folder))["file"] == "saved_model/saved_model.pb"


def test_sparse_bundle(tmp_path: Path) -> None:
    tensor = {"name": "x", "shape": [1, 4], "dtype": "float32"}
    write_bundle(
        tmp_path / "b",
        model={"model.tflite": b"m"},
        name="m",
        target="tflite-float32",
        inputs=[tensor],
        outputs=[tensor],
        edgekit_version="0",
        golden=[{"inputs": [np.ones((1, 4), np.float32)], "outputs": [np.ones((1, 4), np.float32)]}],
    )
    check = check_bundle(tmp_path / "b", lambda _f, x: [x[0] * np.float32(1.001)])
    assert "output is 0.001 of the largest value away" in check.problems[0]
    assert check_bundle(tmp_path / "b", lambda _f, x: [x[0] * np.float32(1.00001)]).ok


WRONG = {
    "model": (lambda d: (d / "model.tflite").write_bytes(b"other"), "model.tflite: its sha256"),
    "label": (lambda d: (d / "labels.txt").write_text("x\n"), "labels.txt: 1 lines: 6"),
    "vector": (lambda d: (d / "golden/0_input.npy").unlink(), "0_input.npy: No such file"),
    "picture": (lambda d: (d / "golden/1_image.png").write_bytes(b""), "1_image.png: its sha256"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_changed_file_is_found(tmp_path: Path, case: str) -> None:
    write_bundle(tmp_path / "b", **settings())
    change, words = WRONG[case]
    change(tmp_path / "b")
    problems = check_bundle(tmp_path / "b").problems
    assert any(words in problem for problem in problems)


def test_wrong_answers_are_found(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **settings())

    def off(by: int) -> Any:
        return lambda file, inputs: [model_of(file, inputs)[0] + np.int8(by)]

    assert len(check_bundle(tmp_path / "b", off(1)).problems) == 3
    assert check_bundle(tmp_path / "b", off(1), max_lsb=1).ok
    assert not check_bundle(tmp_path / "b", lambda _f, x: [x[0]]).ok
    assert not check_bundle(tmp_path / "b", lambda _f, _x: []).ok
    assert not check_bundle(tmp_path / "b", preprocess=lambda p, _m: quantized(255 - p)).ok


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"manifest_version": 99}', '{"manifest_version": 1}'])
def test_a_broken_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json") as error:
        check_bundle(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ArtifactError):
        check_bundle(tmp_path / "nowhere")


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **settings())
    (tmp_path / "secret").write_bytes(b"s")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["files"]["../secret"] = "0" * 64
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    assert any("'../secret': a relative name" in problem for problem in check_bundle(tmp_path / "b").problems)


def test_vectors_must_fit_the_model(tmp_path: Path) -> None:
    vector = settings()["golden"][0]
    for wrong in (
        {**vector, "inputs": [vector["inputs"][0].astype(np.float32)]},
        {**vector, "outputs": [np.zeros((1, 7), np.int8)]},
        {**vector, "outputs": []},
        {**vector, "image": np.zeros((8, 8), np.uint8)},
    ):
        with pytest.raises(ArtifactError, match="golden vector 0"):
            write_bundle(tmp_path / "b", **settings(golden=[wrong]))
    assert list(tmp_path.iterdir()) == []


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "b"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="something else"):
        write_bundle(place, **settings())
    assert tree(tmp_path) == {"b/thesis.txt": b"years of work"}
    link = tmp_path / "link"
    link.symlink_to(place)
    with pytest.raises(StoreError, match="not a directory"):
        write_bundle(link, **settings())
    with pytest.raises(StoreError):
        write_bundle(place / "thesis.txt", **settings())


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "b", **settings())
    before = tree(tmp_path)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        write_bundle(tmp_path / "b", **settings(name="new"))
    assert tree(tmp_path) == before


def test_two_builds_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def build(name: str) -> None:
        try:
            for _ in range(8):
                write_bundle(tmp_path / "b", **settings(name=name, model={"model.tflite": name.encode()}))
        except StoreError:
            pass  # the loser of a race may give up; what stands is whole all the same
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert check_bundle(tmp_path / "b").ok
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


CLIMBING = [
    "../x",
    "/etc/x",
    "a/../../x",
    "a//b",
    ".",
    "..",
    "",
    "a\\b",
    "C:x",
    "a\0b",
    "nul",
    "a/CON.txt",
    "x" * 900,
]


@pytest.mark.parametrize("name", CLIMBING)
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError):
        inside(tmp_path, name)
    with pytest.raises(ArtifactError):
        write_bundle(tmp_path / "b", **settings(extra={name: b""}))
    assert list(tmp_path.iterdir()) == []


def test_links_do_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/out").symlink_to(tmp_path)
    with pytest.raises(ArtifactError):
        inside(tmp_path / "root", "out/x")
    assert inside(tmp_path / "root", "a/b.txt") == (tmp_path / "root/a/b.txt").resolve()


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("mobilenet_v3_large", "mobilenet_v3_large"),
        ("timm:resnet18.a1_in1k", "timm_resnet18.a1_in1k"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "model"),
        ("", "model"),
        ("con.txt", "con.txt_"),
        ("modèle 1", "modele_1"),
        ("x" * 300, "x" * 200),
        ("a\n\0b", "a_b"),
    ],
)
def test_safe_name(raw: str, safe: str) -> None:
    assert safe_name(raw) == safe


def test_labels_keep_one_line_each(tmp_path: Path) -> None:
    labels = ["a\nb", "../../x", " c\u2028d\x85e ", "\u202edcba", "\x1b[31mred", ""]
    write_bundle(tmp_path / "b", **settings(labels=labels))
    lines = (tmp_path / "b/labels.txt").read_text().split("\n")[:-1]
    assert lines == ["a b", "../../x", "c d e", "dcba", "[31mred", ""]
    assert check_bundle(tmp_path / "b").ok
    assert one_line("日本 語") == "日本 語"


def test_pack_and_unpack(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **settings(card="# card\n", extra={"beside.txt": "x"}))
    pack(tmp_path / "b", tmp_path / "one.zip")
    pack(tmp_path / "b", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    unpack(tmp_path / "one.zip", tmp_path / "new")
    expected = tree(tmp_path / "b")
    del expected["beside.txt"]
    assert tree(tmp_path / "new") == expected
    assert check_bundle(tmp_path / "new").ok
    with pytest.raises(ArtifactError, match="empty"):
        unpack(tmp_path / "one.zip", tmp_path / "new")


def _zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "c:evil"])
def test_archives_cannot_climb(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "e.zip", ("fine.txt", b"x"), (name, b"x"))
    with pytest.raises(ArtifactError):
        unpack(path, tmp_path / "in" / "new")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["e.zip"]


def test_archives_with_links_bombs_and_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    bad = [_zip(tmp_path / "link.zip", (link, b"/etc/passwd"))]
    (tmp_path / "rubbish.zip").write_bytes(b"PK\x03\x04 rubbish")
    bad.append(tmp_path / "rubbish.zip")
    bad.append(_zip(tmp_path / "bomb.zip", ("big", b"0" * 5000)))
    monkeypatch.setattr("edgekit.bundle.archive.MAX_BYTES", 1000)
    for path in bad:
        with pytest.raises(ArtifactError):
            unpack(path, tmp_path / "new")
        assert not (tmp_path / "new").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bomb.zip", "link.zip", "rubbish.zip"]


def test_neither_package_needs_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, edgekit.bundle, edgekit.report, edgekit.report.html, edgekit.report.markdown, "
        "edgekit.report.card, edgekit.report.terminal, edgekit.report.inspect; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
