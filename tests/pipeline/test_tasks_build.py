"""Modules with outputs and inputs of every kind, built; the right value is torch eager, file by file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgekit
from edgekit.bundle.check import check_bundle, read_manifest
from edgekit.errors import DataError, UsageError
from edgekit.pipeline import answers
from edgekit.report import validate
from edgekit.tasks.statistics import sqnr_db

TARGETS = ("tflite-float32", "tflite-int8", "onnx-int8", "openvino-int8")
FAST = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}}


class Heads(nn.Module):
    """A map, a vector and one number an image, under names."""

    def __init__(self):
        super().__init__()
        self.stem, self.map, self.vector = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 5, 1), nn.Linear(8, 4)

    def forward(self, x):
        y = self.stem(x).relu()
        pooled = y.mean((2, 3))
        return {"map": self.map(y), "rest": (self.vector(pooled), pooled.sum(1))}


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return F.interpolate(self.head(self.stem(x).relu()), scale_factor=2.0, mode="bilinear")


class Pair(nn.Module):
    """A picture and a vector, told apart by their order alone where both are pictures."""

    def __init__(self, second):
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 8, 3, 2, 1), second
        self.head = nn.Linear(16, 4)

    def forward(self, image, other):
        other = self.other(other)
        other = other.mean((2, 3)) if other.ndim == 4 else other
        return self.head(torch.cat([self.first(image).relu().mean((2, 3)), other], 1))


@pytest.fixture(autouse=True)
def one_store(cache):
    """Every build here keeps its stages beside the others'."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(module):
    torch.manual_seed(0)
    return module().eval()


def leaves(result):
    return [t.numpy() for t in torch.utils._pytree.tree_leaves(result)]


@pytest.fixture(scope="module")
def heads(tmp_path_factory, shared_cache):
    patch = pytest.MonkeyPatch()
    patch.setenv("EDGEKIT_CACHE", str(shared_cache))
    module = made(Heads)
    run = edgekit.build(
        module,
        targets=TARGETS,
        calibration=noise(16, 3, 24, 32),
        evaluation=noise(5, 3, 24, 32, seed=1),
        out=tmp_path_factory.mktemp("heads"),
        **FAST,
    )
    patch.undo()
    return module, run


def test_every_output_is_judged_in_the_graphs_layout(heads):
    _, run = heads
    run.raise_for_gates()
    validate(run.report)
    assert run.report["task"]["name"] == "tensors" and "may mean anything" in run.report["task"]["reason"]
    assert [o["shape"] for o in run.report["task"]["outputs"]] == [[5, 12, 16], [4], []]
    for name, artifact in run.report["artifacts"].items():
        drift = artifact["drift"]
        assert drift["metric"] == "sqnr" and len(drift["outputs"]) == 3
        assert drift["sqnr_db"] == min(row["sqnr_db"] for row in drift["outputs"])
        assert drift["sqnr_db"] > (100 if "float" in name else 25)
    page = (run.directory / "report.html").read_text()
    assert "largest error" in page and "tensors: " in page
    assert "Every output against the float model's" in (run.directory / "report.md").read_text()


def test_the_proofs_figure_is_the_files_own(heads):
    """ONNX Runtime and torch alone: the file's answers against the module's."""
    import onnxruntime

    module, run = heads
    session = onnxruntime.InferenceSession(str(run.artifacts["onnx-int8"].path))
    images = noise(5, 3, 24, 32, seed=1)
    with torch.no_grad():
        wanted = [leaves(module(x[None])) for x in images]
    found = [session.run(None, {session.get_inputs()[0].name: x[None].numpy()}) for x in images]
    for i, row in enumerate(run.report["artifacts"]["onnx-int8"]["drift"]["outputs"]):
        ours = sqnr_db(np.stack([w[i] for w in wanted]), np.stack([f[i] for f in found]))
        assert row["sqnr_db"] == pytest.approx(ours, abs=0.1)


def test_golden_vectors_hold_every_output(heads):
    _, run = heads
    for name, artifact in run.artifacts.items():
        folder = artifact.path.parent
        manifest = read_manifest(folder)
        assert check_bundle(folder).ok and len(manifest["golden"][0]["outputs"]) == 3
        assert (folder / "golden/answers.json").exists() and not (folder / "golden/top5.json").exists()
        (layout,) = {t["layout"] for t in manifest["outputs"] if "layout" in t}
        assert layout == ("NHWC" if name.startswith("tflite") else "NCHW")


def test_masks_make_a_segmentation(tmp_path):
    module, images = made(Segmenter), noise(4, 3, 16, 16, seed=1)
    with torch.no_grad():
        masks = module(images).argmax(1)
    run = edgekit.build(
        module,
        targets=["tflite-int8"],
        calibration=noise(16, 3, 16, 16),
        evaluation=(images, masks),
        class_names=["road", "car", "sky", "tree"],
        verify={"max_top1_drop": 0.5},
        out=tmp_path,
        **FAST,
    )
    drift = run.report["artifacts"]["tflite-int8"]["drift"]
    assert run.report["task"]["name"] == "segmentation" and drift["metric"] == "miou"
    assert drift["reference"] == 100.0 and 60 < drift["artifact"] < 100
    assert drift["ci_low"] <= drift["drop"] <= drift["ci_high"]
    assert next(g for g in run.report["gates"] if g["name"] == "drift")["detail"].startswith("mean IoU 100")
    assert "mean IoU" in (run.directory / "report.md").read_text()


@pytest.mark.parametrize("kind", ["vector", "same shape", "one channel"])
def test_two_inputs(kind, tmp_path):
    second = {
        "vector": lambda: nn.Linear(6, 8),
        "same shape": lambda: nn.Conv2d(3, 8, 3, 2, 1),
        "one channel": lambda: nn.Conv2d(1, 8, 3, 2, 1),
    }[kind]
    shape = {"vector": (6,), "same shape": (3, 16, 16), "one channel": (1, 16, 16)}[kind]
    module = made(lambda: Pair(second()))
    calibration = {"other": noise(16, *shape, seed=3), "image": noise(16, 3, 16, 16)}
    held, labels = (noise(4, 3, 16, 16, seed=1), noise(4, *shape, seed=2)), torch.tensor([0, 1, 2, 3])
    run = edgekit.build(
        module,
        targets=TARGETS,
        calibration=calibration,
        evaluation=(held, labels),
        verify={"max_top1_drop": 1.0, "min_pairwise_agreement": "off"},
        out=tmp_path,
        **FAST,
    )
    run.raise_for_gates()
    for name, artifact in run.report["artifacts"].items():
        assert artifact["drift"]["metric"] == "top1" and artifact["drift"]["n"] == 4
        assert artifact["drift"]["sqnr_db"] > (100 if "float" in name else 20), name
        manifest = read_manifest(run.artifacts[name].path.parent)
        assert len(manifest["inputs"]) == 2 and len(manifest["golden"][0]["inputs"]) == 2


def test_what_is_given_and_what_is_taken_must_fit(tmp_path):
    module = made(lambda: Pair(nn.Linear(6, 8)))
    image, other = noise(8, 3, 16, 16), noise(8, 6)

    def build(calibration, evaluation=None, **more):
        edgekit.build(module, calibration=calibration, evaluation=evaluation, out=tmp_path, **FAST, **more)

    with pytest.raises(DataError, match="the forward's parameters in order, image, other"):
        build({"image": image, "othr": other})
    with pytest.raises(DataError, match="numbers of images differ"):
        build((image, other[:5]))
    with pytest.raises(DataError, match="1 inputs: 2 as in the calibration"):
        build((image, other), image)
    with pytest.raises(DataError, match="8 images: one integer each"):
        build((image, other), ((image, other), torch.tensor([1, 2])))
    with pytest.raises(UsageError, match="no output of class scores"):
        build((image, other), ((image, other), torch.zeros(8, 7, 7).long()))
    with pytest.raises(DataError, match=r"masks of \(7, 7\) for a map of \(8, 8\)"):
        edgekit.build(
            made(Heads), calibration=image, evaluation=(image, torch.zeros(8, 7, 7).long()), out=tmp_path
        )
    with pytest.raises(UsageError, match=r"\[task\] segmentation: outputs"):
        build((image, other), task="segmentation")


class Whole(nn.Module):
    """Outputs without a batch: one number for everything, and rows taken out of the only image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        y = self.stem(x)
        return y.mean(), y.reshape(1, 8, -1)[0].permute(1, 0), y


def test_outputs_without_a_batch(tmp_path):
    run = edgekit.build(
        made(Whole),
        targets=["tflite-float32", "tflite-int8", "openvino-int8"],
        calibration=noise(8, 3, 16, 16),
        evaluation=noise(3, 3, 16, 16, seed=1),
        verify={"min_sqnr_db": 5.0, "max_transposes": "off"},
        out=tmp_path,
        **FAST,
    )
    run.raise_for_gates()
    for name, artifact in run.report["artifacts"].items():
        rows = artifact["drift"]["outputs"]
        assert [row["shape"] for row in rows] == [[], [64, 8], [8, 8, 8]]
        assert rows[1]["sqnr_db"] > (100 if "float" in name else 25)
        assert check_bundle(run.artifacts[name].path.parent).ok


def test_answers_that_would_not_fit_are_asked_of_fewer_images(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "LIMIT_BYTES", 3 * 4 * 4 * 16 * 16)  # three maps of four channels
    run = edgekit.build(
        made(Segmenter),
        targets=["tflite-float32"],
        calibration=noise(8, 3, 16, 16),
        evaluation=noise(9, 3, 16, 16, seed=1),
        out=tmp_path,
        **FAST,
    )
    data = run.report["provenance"]["data"]
    assert (data["n_evaluation"], data["asked_evaluation"]) == (3, 9) and "GB" in data["evaluation_limit"]
    assert run.report["artifacts"]["tflite-float32"]["drift"]["n"] == 3
    assert "3 of the 9 images asked for" in (run.directory / "report.md").read_text()
