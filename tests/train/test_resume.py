"""A training that is killed at any moment ends with the bytes of one that was not."""

import random
import subprocess
import sys

import pytest
import torch

from edgekit.errors import TrainError
from edgekit.train import Settings, train
from edgekit.train.checkpoint import weights_sha256
from tests.train.networks import small, striped

SETTINGS = {
    "steps": 120,
    "threads": 1,  # both processes must sum alike: each has a number of its own by default
    "batch": 8,
    "optimizer": "muon",
    "mixup": 0.2,
    "label_smoothing": 0.1,
    "ema": 20.0,
    "clip": 1.0,
    "stages": ((0.5, 8), (0.5, 12)),
    "checkpoint_seconds": 0.02,
}
# One process loads torch; its forks train, and are killed so many seconds after their first step.
RUN = """
import os, signal, sys, time
from pathlib import Path
from edgekit.train import Settings, train
from tests.train.networks import small, striped
from tests.train.test_resume import SETTINGS

checkpoint = Path(sys.argv[1])

def child(pipe):
    def progress(done, total):
        time.sleep(0.005)
        os.write(pipe, b".")
    settings = Settings(**SETTINGS)
    train(small(), striped(), settings, teacher=small(7), checkpoint=checkpoint, progress=progress)
    os._exit(0)

for seconds in map(float, sys.argv[2:]):
    end, pipe = os.pipe()
    process = os.fork()
    if process == 0:
        child(pipe)
    os.read(end, 1)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    print(os.waitpid(process, 0)[1], flush=True)
"""


def test_killed_at_ten_moments_the_bytes_are_the_same(tmp_path):
    weights = train(small(), striped(), Settings(**SETTINGS), teacher=small(7)).weights
    moments = random.Random(0)
    killed = [str(round(moments.uniform(0.0, 0.1), 4)) for _ in range(10)]
    checkpoint = tmp_path / "state.pt"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(checkpoint), *killed], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["9"] * 10
    assert 0 < torch.load(checkpoint)["step"] < 120
    module = small()
    settings = Settings(**{**SETTINGS, "checkpoint_seconds": 5.0})
    record = train(module, striped(), settings, teacher=small(7), checkpoint=checkpoint)
    assert record.weights == weights == weights_sha256(module)
    # a finished training gives its result again
    assert train(small(), striped(), settings, teacher=small(7), checkpoint=checkpoint).weights == weights
    assert {path.name for path in tmp_path.iterdir()} <= {"state.pt", ".state.pt.partial"}


class Stop(Exception):
    pass


def _stopped(settings, checkpoint, at):
    def progress(done, total):
        if done >= at:
            raise Stop

    with pytest.raises(Stop):
        train(small(), striped(), settings, checkpoint=checkpoint, progress=progress)


@pytest.mark.parametrize("optimizer", ("adamw", "sgd", "muon"))
def test_stopped_and_resumed_with_every_optimizer(tmp_path, optimizer):
    settings = Settings(steps=12, batch=8, optimizer=optimizer, checkpoint_seconds=1e-9)
    expected = train(small(), striped(), settings).weights
    _stopped(settings, tmp_path / "c", 5)
    assert train(small(), striped(), settings, checkpoint=tmp_path / "c").weights == expected


def test_minutes_become_steps_once(tmp_path):
    settings = Settings(minutes=0.004, batch=4, checkpoint_seconds=1e-9)
    _stopped(settings, tmp_path / "c", 3)
    steps = sum(row[-1] for row in torch.load(tmp_path / "c")["plan"])
    assert train(small(), striped(), settings, checkpoint=tmp_path / "c").steps == steps


def test_as_many_threads_as_it_began_with(tmp_path):
    before = torch.get_num_threads()
    settings = Settings(steps=6, batch=4, threads=2, checkpoint_seconds=1e-9)
    _stopped(settings, tmp_path / "c", 3)
    assert torch.get_num_threads() == before
    other = Settings(steps=6, batch=4, threads=1, checkpoint_seconds=5)
    assert train(small(), striped(), other, checkpoint=tmp_path / "c").threads == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    (({"rate": 1e-4}, "settings differ"), ({"steps": 7}, "settings differ"), ({}, "data, weights differ")),
)
def test_another_training_is_refused(tmp_path, changed, said):
    settings = {"steps": 4, "batch": 4, "checkpoint_seconds": 1e-9}
    train(small(), striped(), Settings(**settings), checkpoint=tmp_path / "c")
    module, data = (small(), striped()) if changed else (small(1), striped(32))
    with pytest.raises(TrainError, match=said):
        train(module, data, Settings(**{**settings, **changed}), checkpoint=tmp_path / "c")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b"no checkpoint")
    with pytest.raises(TrainError, match="no checkpoint of a training"):
        train(small(), striped(), Settings(steps=1), checkpoint=tmp_path / "c")
