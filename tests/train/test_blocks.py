"""Blocks of a captured graph that learn from the same blocks of another."""

import copy
import functools

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.errors import UsageError
from edgekit.graph.module import as_module
from edgekit.train import Settings, distil_blocks
from edgekit.train.checkpoint import weights_sha256
from tests.train.networks import striped

BLOCKS = ("a", "b", "head")


class Blocks(nn.Module):
    """Two blocks between the same ends, of any width inside; the second is residual."""

    def __init__(self, width=12):
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 1)
        )
        self.b = Residual(width)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Conv2d(8, width, 1), nn.Conv2d(width, 8, 1)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.drop(self.down(torch.relu(self.up(x))))


@functools.cache
def _captured(seed, width):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return capture(Blocks(width).eval(), torch.zeros(1, 3, 12, 12), training=True)


def network(seed=0, width=12):
    return as_module(_captured(seed, width))


def errors(student, teacher, names):
    """Relative error of each block of the student by itself, fed with the teacher's values."""
    x = striped().batches(0, 64, None, 0)[0][0]
    kept = {}
    teacher.eval().watched([x], lambda name, y: kept.setdefault(name, y))
    ends = {name: block for block, (_, name, _) in student.ends().items() if block in names}
    found = {}

    def compare(name, y):
        if name not in ends:
            return y
        right = kept[teacher.ends()[ends[name]][1]]
        found[ends[name]] = float((y - right).square().sum() / right.square().sum())
        return right

    with torch.no_grad():
        student.eval().watched([x], compare)
    return found


@pytest.mark.parametrize("inputs", ["student", "teacher"])
def test_narrower_blocks_come_near_the_teachers(inputs):
    teacher, student = network(), network(1, width=10)
    before, head = errors(student, teacher, BLOCKS), student.head.weight.clone()
    settings = Settings(steps=150, rate=1e-2, weight_decay=0.0)
    record = distil_blocks(student, teacher, ["a", "b"], striped(labels=False), settings, inputs=inputs)
    after = errors(student, teacher, BLOCKS)
    assert after["a"] < 0.35 * before["a"] and after["b"] < 0.35 * before["b"]
    assert torch.equal(student.head.weight, head)  # no block before the last one's end
    assert record.losses[-1] < 0.3 * record.losses[0] and not student.training
    assert record.weights == weights_sha256(student)


def test_a_block_learns_from_its_own_loss_alone():
    """With a second block that is wrong at its output only, the first one has nothing to learn."""
    teacher = network()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.b.down.bias.add_(0.5)
    before = copy.deepcopy(student.state_dict())
    settings = Settings(steps=5, rate=1e-2, weight_decay=0.0, freeze_batch_norm="statistics")
    distil_blocks(student, teacher, ["a", "b"], striped(), settings)
    after = student.state_dict()
    assert all(
        torch.allclose(after[name], before[name], atol=1e-6) for name in before if name.startswith("a.")
    )
    assert not torch.equal(after["b.down.bias"], before["b.down.bias"])


def test_the_end_of_the_network_is_a_block():
    teacher, student = network(), network(1)
    settings = Settings(steps=150, rate=1e-2, weight_decay=0.0)
    distil_blocks(student, teacher, ["a", "b", ""], striped(), settings)
    x = striped().batches(0, 32, None, 0)[0][0]
    with torch.no_grad():
        ours, theirs = student.eval()(x), teacher.eval()(x)
    assert float((ours - theirs).square().sum() / theirs.square().sum()) < 0.2


def test_a_killed_distillation_ends_with_the_same_bytes(tmp_path):
    settings = Settings(steps=30, threads=1, ema=5.0, clip=1.0, checkpoint_seconds=1e-6)
    teacher, student = network(), network(1)

    def run(file=None, progress=None):
        module = copy.deepcopy(student)
        return distil_blocks(
            module, teacher, BLOCKS, striped(), settings, checkpoint=file, progress=progress
        ).weights

    class Killed(Exception):
        pass

    wanted = run()
    for moment in (0, 7, 29):
        calls = []

        def progress(done, total, calls=calls, moment=moment):
            calls.append(done)
            if len(calls) > moment:
                raise Killed

        file = tmp_path / f"{moment}.pt"
        with pytest.raises(Killed):
            run(file, progress)
        assert run(file) == wanted


@pytest.mark.parametrize(
    ("blocks", "said"),
    (
        (["a", "c"], "no block 'c' in both networks: .*a, .*b"),
        (["b", "a"], "block 'a' ends no later"),
        ([], "no blocks"),
        (["a.0", "b"], "'a.0' gives .1, 10, 6, 6., the teacher's .1, 12, 6, 6."),
    ),
)
def test_blocks_that_cannot_be(blocks, said):
    with pytest.raises(UsageError, match=said):
        distil_blocks(network(1, width=10), network(), blocks, striped(), Settings(steps=1))


def test_settings_that_blocks_do_not_have():
    with pytest.raises(UsageError, match="no inputs 'both' of blocks: student, teacher"):
        distil_blocks(network(), network(), ["a"], striped(), Settings(steps=1), inputs="both")
    with pytest.raises(UsageError, match="mixup 0"):
        distil_blocks(network(), network(), ["a"], striped(), Settings(steps=1, mixup=0.2))
