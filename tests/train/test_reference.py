"""The shipped checkpoints: what index.json claims is what the files are and what they answer."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgekit.errors import UnknownModelError
from edgekit.train import reference
from edgekit.train.data import Grade
from edgekit.train.reference import PLANS, SOURCES, Renormalised, accuracy, build, carry_over, load_reference
from edgekit.train.settings import Stage
from edgekit.zoo.weights import reference_folder

FOLDERS = {name: reference_folder(name) for name in PLANS}
INDEX = {name: json.loads((folder / "index.json").read_text()) for name, folder in FOLDERS.items()}
SHIPPED = [(images, name) for images, rows in INDEX.items() for name in sorted(rows)]
shipped = pytest.mark.parametrize(("images", "name"), SHIPPED)
# All right or all wrong, and a set tells nothing.
ACCURACY = {"embedded": (0.85, 0.99), "embedded-hard": (0.70, 0.88)}


@pytest.mark.parametrize("images", sorted(PLANS))
def test_every_reference_model_ships(images):
    assert set(INDEX[images]) == {path.stem for path in FOLDERS[images].glob("*.safetensors")} <= set(SOURCES)


@shipped
def test_index_describes_the_file(images, name):
    row, plan = INDEX[images][name], PLANS[images]
    path = FOLDERS[images] / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
    assert row["data"] == images and tuple(row["class_names"]) == plan.images.class_names
    assert row["num_classes"] == len(row["class_names"]) and row["resolution"] == plan.resolution
    assert row["source"] == SOURCES[name] and row["trained_with"].startswith("python -m edgekit.train")
    least, most = ACCURACY[images]
    assert least <= row["accuracy"] <= most and row["evaluation_images"] == plan.evaluation
    _, mean, std = build(name)
    assert (tuple(row["mean"]), tuple(row["std"])) == (mean, std)


@shipped
def test_weights_are_finite_and_fit_the_model(images, name):
    state = load_file(FOLDERS[images] / f"{name}.safetensors")
    assert all(t.dtype == torch.float16 for t in state.values() if t.is_floating_point())
    assert all(torch.isfinite(t).all() for t in state.values() if t.is_floating_point())
    model, _ = load_reference(name, FOLDERS[images])
    assert not model.training


@pytest.mark.parametrize("images", sorted(PLANS))
def test_measured_accuracy_is_the_recorded_one(images):
    model, row = load_reference("mobilenet_v3_small", FOLDERS[images])
    plan = replace(PLANS[images], evaluation=300)
    found = accuracy(model, tuple(row["mean"]), tuple(row["std"]), plan)
    # 300 pictures of thousands: three standard errors
    assert abs(found - row["accuracy"]) < 3 * np.sqrt(row["accuracy"] * (1 - row["accuracy"]) / 300)


def test_a_few_steps_of_training_write_a_checkpoint(tmp_path, monkeypatch):
    stages = (
        (Stage(0.5, 32, 32), Grade(64, hard=0.3, zoom=1.5)),
        (Stage(0.5, 48, 16), Grade(64)),
    )
    resumed = ((Stage(1.0, 48, 16), Grade(64)),)
    small = replace(PLANS["embedded"], stages=stages, resumed=resumed, evaluation=4)
    monkeypatch.setitem(PLANS, "embedded", small)
    arguments = ["mobilenet_v3_small", "--minutes", "0.02", "--out", str(tmp_path / "out")]
    reference.main([*arguments, "--cache", str(tmp_path / "cache")])
    model, row = load_reference("mobilenet_v3_small", tmp_path / "out")
    assert row["trained_with"] == "python -m edgekit.train.reference mobilenet_v3_small --minutes 0.02"
    assert model.classifier[-1].out_features == 24
    assert len(list((tmp_path / "cache").iterdir())) >= 1
    assert not list((tmp_path / "out").glob("*.pt"))
    before = model.classifier[-1].weight.clone()
    reference.main(
        [*arguments, "--cache", str(tmp_path / "cache"), "--resume", "--teacher", "mobilenet_v3_small"]
    )
    after, row = load_reference("mobilenet_v3_small", tmp_path / "out")
    assert row["trained_with"].count("python -m") == 2
    assert not torch.equal(before, after.classifier[-1].weight)


def test_a_model_of_the_hard_set_begins_with_its_checkpoint_of_the_other():
    start, _ = load_reference("mobilenet_v3_small")
    model, _, _ = build("mobilenet_v3_small", 40)
    drawn = model.classifier[-1].weight[24:].clone()
    carry_over(model, start)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x)[:, :24], start(x))
    assert torch.equal(model.classifier[-1].weight[24:], drawn)


def test_a_teacher_sees_the_pictures_as_it_was_trained():
    pixels = torch.rand(2, 3, 4, 4)
    given, wanted = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    shown = [
        (pixels - torch.tensor(m).view(3, 1, 1)) / torch.tensor(s).view(3, 1, 1) for m, s in (given, wanted)
    ]
    torch.testing.assert_close(Renormalised(torch.nn.Identity(), given, wanted)(shown[0]), shown[1])


def test_unknown_names_are_corrected():
    with pytest.raises(UnknownModelError, match="did you mean mobilenet_v2"):
        build("mobilenet_v22")
