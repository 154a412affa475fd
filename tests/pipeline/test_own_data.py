"""A user's own pictures through a whole build: names, counts, orientation and what was left out are said."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import NET, net

import edgekit as package
from edgekit.bundle.check import read_manifest
from edgekit.data import Preprocessing, open_images
from edgekit.errors import UsageError
from edgekit.pipeline.recipe import from_dict

FEW = ["--profile", "fast", "--latency", "off", "--calibration", 12]
NAMES = ["amber", "blue", "cyan", "dun"]


def _report(out):
    return json.loads((out / "report.json").read_text())


def test_the_folders_name_the_classes_and_the_counts_are_said(edgekit, cache, folder, tmp_path):
    out = tmp_path / "out"
    code, text, err = edgekit("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW)
    assert code == 0, err
    assert (out / "tflite-int8" / "labels.txt").read_text() == "amber\nblue\ncyan\ndun\n"
    manifest = read_manifest(out / "tflite-int8")
    assert manifest["labels"] == {"file": "labels.txt", "count": 4}
    assert manifest["preprocessing"]["settings"]["orientation"] == "ignored"
    assert manifest["preprocessing"]["steps"][0]["orientation"] == "ignored"
    data = _report(out)["provenance"]["data"]
    assert (data["n_calibration"], data["asked_calibration"]) == (12, 12)
    assert data["asked_evaluation"] == 2000
    assert 0 < data["n_evaluation"] < 40
    assert f"evaluation: {data['n_evaluation']} of the 2,000 images asked for" in text
    assert "calibration: " not in text


def test_given_names_find_the_folders_of_a_subset(edgekit, cache, folder, tmp_path):
    root = tmp_path / "images"
    for split in ("train", "valid"):
        (root / split).mkdir(parents=True)
        for name in ("dun", "blue"):
            (root / split / name).symlink_to(folder / name)
    (root / "labels").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "calibration").mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "calibration" / f"{i}.jpg", exif=exif)
    listed = tmp_path / "names.txt"
    listed.write_text("\ufeff" + "\r\n".join(NAMES) + "\r\n", encoding="utf-8")
    out = tmp_path / "out"
    code, text, err = edgekit(
        "build", NET, "--data", f"imagefolder:{root}", "--out", out, *FEW, "--exif", "apply",
        "--class-names", listed, "--evaluation", 40,
    )  # fmt: skip
    assert code in (0, 1), err
    assert (out / "tflite-int8" / "labels.txt").read_text() == "amber\nblue\ncyan\ndun\n"
    report = _report(out)
    assert report["provenance"]["recipe"]["data"]["class_names"] == NAMES
    assert report["provenance"]["data"]["orientation"] == "applied"
    assert report["provenance"]["data"]["turned"] == 12
    assert read_manifest(out / "tflite-int8")["preprocessing"]["settings"]["orientation"] == "applied"
    assert report["artifacts"]["tflite-int8"]["drift"]["metric"] == "top1"
    assert "left out: 1 folder beside the splits: labels" in text
    # torch eager on what PIL decodes, by the names
    module, right = net(), 0
    images = open_images(f"imagefolder:{root}", "evaluation", 40, Preprocessing(**net().preprocessing))
    with torch.inference_mode():
        for i in range(len(images)):
            said = int(module(torch.from_numpy(images.inputs(i)[0])[None]).argmax())
            right += NAMES[said] == images.images[i].parent.name
    reference = report["artifacts"]["tflite-int8"]["drift"]["reference"]
    assert reference == pytest.approx(100 * right / len(images), abs=1e-6)


def test_a_flat_folder_is_calibrated_with_and_compared_on(edgekit, cache, tmp_path):
    for i in range(400):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    code, _, err = edgekit("build", NET, "--data", f"imagefolder:{tmp_path}", "--out", out, *FEW)
    assert code == 0, err
    assert not (out / "tflite-int8" / "labels.txt").exists()
    assert _report(out)["artifacts"]["tflite-int8"]["drift"]["metric"] == "agreement"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a\nb\nc", ["a", "b", "c"]),
        ("a\nb b\n\n", ["a", "b b"]),
        ('["a", "b"]', ["a", "b"]),
        ('{"0": "a", "1": "b"}', ["a", "b"]),
        ('{"b": 1, "a": 0}', ["a", "b"]),
        ("", None),
        ("a\n\nb", None),
        ('{"0": "a", "2": "b"}', None),
        ("[1, 2]", None),
        ("[", None),
    ],
)
def test_files_of_class_names(tmp_path, content, names):
    path = tmp_path / "names"
    path.write_text(content)
    wanted = {"model": "m", "data": {"class_names": str(path)}}
    if names is None:
        with pytest.raises(UsageError, match="no class names"):
            from_dict(wanted)
    else:
        assert from_dict(wanted).data.class_names == tuple(names)
        assert from_dict(from_dict(wanted).to_dict()) == from_dict(wanted)


def test_another_number_of_names_than_outputs(edgekit, cache, folder, tmp_path):
    listed = tmp_path / "names.txt"
    listed.write_text("a\nb\nc\n")
    out = tmp_path / "out"
    arguments = ("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW)
    code, _, err = edgekit(*arguments, "--class-names", listed)
    assert code == 2
    assert "3 for small_model.net with 4 outputs" in err
    assert edgekit(*arguments, "--class-names", tmp_path / "none.txt")[0] == 2
    assert not out.exists()


def test_names_from_python_reach_a_model_named_by_a_string(cache, folder, tmp_path):
    with pytest.raises(UsageError, match="2 for"):
        package.build(
            NET,
            out=tmp_path / "out",
            class_names=["a", "b"],
            data={"source": f"imagefolder:{folder}"},
            device={"profile": "off"},
        )


@pytest.mark.parametrize(("asked", "least"), [(1, None), (31, None), (32, None), (8, 8)])
def test_a_verdict_on_too_few_images_is_none(edgekit, cache, tmp_path, asked, least):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'model = "{NET}"\n[verify]\nmax_top1_drop = 1.0\n')
    if least is not None:
        recipe.write_text(recipe.read_text() + f"min_images = {least}\n")
    out = tmp_path / "out"
    code, text, err = edgekit(
        "build", "--recipe", recipe, "--data", f"imagefolder:{tmp_path}", "--out", out,
        "--profile", "fast", "--latency", "off", "--calibration", 1, "--evaluation", asked,
    )  # fmt: skip
    assert code == 0, err
    report = _report(out)
    drift = next(gate for gate in report["gates"] if gate["name"] == "drift")
    assert report["provenance"]["data"]["n_evaluation"] == asked
    assert drift["judged"] == (asked >= (least or 32))
    if drift["judged"]:
        assert "Ready to ship" in text
    else:
        assert "too few to judge by, at least 32" in drift["detail"]
        assert "Ready to ship" not in text
        assert "Passed, but on too few images" in text
        assert "cannot tell how good the answers are" in (out / "report.md").read_text()
        assert f"evaluation: {asked}" not in text


def test_what_was_left_out_stands_in_every_page(edgekit, cache, folder, tmp_path):
    root = tmp_path / "images"
    for split in ("train", "val"):
        (root / split / "empty").mkdir(parents=True)
        for name in NAMES[:3]:
            (root / split / name).symlink_to(folder / name)
    (root / "val" / "scan.heic").write_bytes(b"")
    (root / "val" / "loose.png").write_bytes((folder / "blue" / "1.png").read_bytes())
    out = tmp_path / "out"
    code, text, err = edgekit("build", NET, "--data", f"imagefolder:{root}", "--out", out, *FEW)
    assert code in (0, 1), err
    for said in ("1 class folder without pictures: val/empty", "outside the class folders: val/loose.png"):
        pages = (text, *((out / page).read_text() for page in ("report.md", "report.html", "report.json")))
        pages += ((out / "tflite-int8" / "MODEL_CARD.md").read_text(),)
        assert all(said in " ".join(page.replace("\\", "").split()) for page in pages)


def test_a_split_that_is_not_there_is_said_before_any_work(edgekit, cache, tmp_path):
    for name in NAMES:
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (32, 32)).save(tmp_path / "train" / name / f"{i}.png")
    code, _, err = edgekit("build", NET, "--data", f"imagefolder:{tmp_path}", *FEW, "--out", tmp_path / "out")
    assert code == 2
    assert "no folder for the evaluation split" in err
    assert "capture" not in err


def test_no_evaluation_images_at_all(cache, tmp_path):
    images = torch.randn(8, 3, 32, 32)
    run = package.build(
        net(), calibration=images, out=tmp_path, quantize={"profile": "fast"}, device={"profile": "off"}
    )
    assert run.ok
    assert "Passed, but not evaluated" in (tmp_path / "report.md").read_text()
