"""[train] in a build: the bytes of the loop by hand, after kill -9 too; labels as the model numbers them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import load_file
from small_model import NET, net

import edgekit
from edgekit.capture import capture
from edgekit.errors import UsageError
from edgekit.graph.module import as_module
from edgekit.pipeline import recipe as recipes
from edgekit.train import Settings, tensor_data, train

OFF = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}, "targets": ["tflite-float32"]}


def _images(count=40):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def kept(cache, step):
    """The graphs of a step in a store."""
    return sorted(cache.glob(f"{step}/[!.]*/graph.safetensors"))


def test_a_build_trains_as_the_loop_does(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    images = _images()
    told = {"steps": 6, "rate": 0.01, "batch": 8, "optimizer": "sgd"}
    run = edgekit.build(
        net(),
        calibration=images[:16],
        evaluation=images,
        out=tmp_path / "out",
        train=told,
        task="classification",
        **OFF,
    )
    student, teacher = (as_module(capture(net(), images[:1], training=True)) for _ in range(2))
    train(student, tensor_data(images[:16]), Settings(**told, hard_share=0.0), teacher=teacher.eval())
    (path,) = kept(tmp_path / "cache", "train")
    made, wanted = load_file(path), student.to_graph().constants()
    digests = {hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in made.values()}
    assert all(hashlib.sha256(v.data.numpy().tobytes()).hexdigest() in digests for v in wanted)
    notes = run.report["variants"][1]["record"]["notes"]
    assert "6 steps, 48 images" in notes[0] and "calibration images" in notes[1]


def test_outputs_of_unknown_meaning_are_learned_as_they_are(tmp_path, cache):
    images = _images()
    run = edgekit.build(net(), calibration=images[:16], out=tmp_path, train={"steps": 2}, **OFF)
    assert "outputs as they are" in run.report["variants"][1]["record"]["notes"][1]


def test_minutes_are_kept_as_the_steps_they_came_to(tmp_path, cache, folder, edgekit):
    code, _, error = edgekit(
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 8, "--evaluation", 40, "--train", "0.002min", "--out", tmp_path,
    )  # fmt: skip
    assert code in (0, 1), error
    report = json.loads((tmp_path / "report.json").read_text())
    record = report["variants"][1]["record"]
    assert record["settings"] == {"minutes": None, "steps": record["settings"]["steps"]}
    assert "labels with a share of 0.3" in record["notes"][1]
    code, printed, error = edgekit("repro", tmp_path)
    assert code == 0 and "byte-identical" in printed, error


OWN = """
    import torch
    def mine(module, context):
        inputs, labels = next(context.batches(8))
        assert inputs[0].shape == (8, 3, 32, 32) and labels.shape == (8,)
        with torch.no_grad():
            list(module.parameters())[-1].add_(1.0)
"""


def test_a_function_of_the_user_s_trains(tmp_path, cache, folder, edgekit):
    script = tmp_path / "own.py"
    script.write_text(textwrap.dedent(OWN))
    command = (
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 8, "--evaluation", 40, "--train", f"{script}:mine", "--out", tmp_path / "out",
    )  # fmt: skip
    code, _, error = edgekit(*command)
    assert code in (0, 1), error
    (train_row,) = (
        r for r in json.loads((tmp_path / "out/report.json").read_text())["variants"] if r["step"] == "train"
    )
    assert train_row["record"]["notes"] == [f"Trained by {script}:mine."]
    script.write_text(textwrap.dedent(OWN).replace("1.0", "2.0"))  # another function: trained again
    before = len(kept(cache, "train"))
    assert edgekit(*command)[0] in (0, 1)
    assert len(kept(cache, "train")) == before + 1
    code, _, error = edgekit(*command[:-4], "--train", f"{script}:other", "--out", tmp_path / "none")
    assert code == 2 and "no function 'other'" in error and not (tmp_path / "none").exists()


def test_a_length_of_a_flag_takes_the_place_of_the_recipe_s(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('model = "m"\n[train]\nsteps = 500\nrate = 0.01\nstages = [[0.5, 64], [0.5, 96, 16]]\n')
    assert recipes.load(path, {"train": {}}).train.steps == 500
    told = recipes.load(path, {"train": {"minutes": 3}}).train
    assert (told.minutes, told.steps, told.rate, told.stages[1].batch) == (3.0, None, 0.01, 16)
    assert recipes.from_dict(recipes.load(path).to_dict()) == recipes.load(path)
    with pytest.raises(
        UsageError, match=r"r.toml: \[train\] there is no schedule 'cosin'; did you mean cosine"
    ):
        recipes.load(path, {"train": {"schedule": "cosin"}})


def test_a_build_that_was_killed_while_it_trained_ends_with_the_same_bytes(tmp_path, folder):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'model = "{NET}"\n[data]\nsource = "imagefolder:{folder}"\ncalibration = 8\nevaluation = 40\n'
        "[train]\nsteps = 60\nbatch = 32\nema = 10\ncheckpoint_seconds = 0.05\n"
        '[target]\nnames = ["tflite-int8"]\n[device]\nprofile = "off"\n[quantize]\nprofile = "fast"\n'
    )

    def start(name):
        command = [
            sys.executable,
            "-c",
            "from edgekit.cli.main import main; main()",
            "build",
            "--recipe",
            str(recipe),
        ]
        places = ["--out", str(tmp_path / f"out-{name}"), "--cache", str(tmp_path / name)]
        return subprocess.Popen([*command, *places], env={**os.environ, "OMP_NUM_THREADS": "1"})

    def bytes_of(name):
        return (tmp_path / f"out-{name}" / "tflite-int8").glob("model*.tflite").__next__().read_bytes()

    assert start("whole").wait() in (0, 1)
    killed = start("killed")
    while not list((tmp_path / "killed").glob("train/.work-*/training.pt")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not kept(tmp_path / "killed", "train")
    assert start("killed").wait() in (0, 1)
    assert bytes_of("whole") == bytes_of("killed")
    assert [p.read_bytes() for p in kept(tmp_path / "whole", "train")] == [
        p.read_bytes() for p in kept(tmp_path / "killed", "train")
    ]


def test_labels_are_numbered_as_the_model_does(tmp_path, folder):
    from small_model import PREPROCESSING

    from edgekit.data import Preprocessing
    from edgekit.data.source import Source
    from edgekit.pipeline.step_settings import Train
    from edgekit.pipeline.steps.train import training_data
    from edgekit.tasks import Known, Output, choose

    class Job:
        name = "n"
        class_names = ("dun", "cyan", "blue", "amber")
        calibration = Source(f"imagefolder:{folder}", "calibration", 8, Preprocessing(**PREPROCESSING))

    task = choose("classification", [Output("o", (4,), "float32")], Known(False, (), Job.class_names))
    _, ours = training_data(Train(steps=1), Job, task).batches(0, 32, None, 0)
    Job.class_names = None
    _, plain = training_data(Train(steps=1), Job, task).batches(0, 32, None, 0)
    assert ours.tolist() == [3 - label for label in plain.tolist()]
    Job.calibration = Source("embedded", "calibration", 8, Preprocessing(**PREPROCESSING))
    Job.class_names = ("cat", "dog")  # of another world
    assert training_data(Train(steps=1), Job, task).batches(0, 4, None, 0)[1] is None
