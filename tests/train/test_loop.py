"""The loop: what learns and what stays, rates, the average, and steps that follow from their number alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.errors import DataError, TrainError, UsageError
from edgekit.train import Settings, Stage, fit, layers, tensor_data, train
from edgekit.train.checkpoint import weights_sha256
from edgekit.train.loop import ema_decay
from edgekit.train.optimizers import depth_factor, make_optimizers, set_rates
from edgekit.train.schedules import plan_each, plan_steps, rate_at
from tests.train.networks import small, striped


def accuracy(module, data):
    with torch.no_grad():
        return float((module(*data.arrays).argmax(1) == data.labels).float().mean())


def test_it_learns_and_leaves_the_module_in_eval_mode():
    module, data = small(), striped()
    record = train(module, data, Settings(steps=60, batch=16, rate=2e-2))
    assert accuracy(module, data) > 0.95
    assert not module.training and all(p.requires_grad and p.grad is None for p in module.parameters())
    assert record.steps == 60 and record.stages == ((None, 16, 60),)
    assert len(record.losses) == 60 and record.losses[-1] < 0.3 < record.losses[0]
    assert record.weights == weights_sha256(module)


@pytest.mark.parametrize("optimizer", ("adamw", "sgd", "muon"))
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(optimizer):
    settings = {"steps": 6, "batch": 8, "optimizer": optimizer, "mixup": 0.2, "ema": 4.0, "clip": 1.0}

    def trained(seed):
        module = small()
        return train(module, striped(), Settings(**settings, seed=seed)).weights

    state = torch.get_rng_state()
    first = trained(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert trained(0) == first != trained(1)


def test_only_the_head_moves_and_batch_norm_elsewhere_is_frozen():
    module = small()
    before = copy.deepcopy(module.state_dict())
    train(module, striped(), Settings(steps=4, batch=8, trainable="head"))
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}


def test_only_norms_and_biases_move():
    module = small()
    before = copy.deepcopy(module.state_dict())
    train(module, striped(), Settings(steps=4, batch=8, trainable="norms"))
    moved = {
        name
        for name, _ in module.named_parameters()
        if not torch.equal(module.state_dict()[name], before[name])
    }
    assert moved == {"head.bias"} | {
        f"{n}.{k}" for n in ("norm", "depth_norm", "project_norm") for k in ("weight", "bias")
    }


@pytest.mark.parametrize(("frozen", "scales_move"), (("statistics", True), ("all", False)))
def test_frozen_statistics_are_unchanged(frozen, scales_move):
    module = small()
    nn.init.uniform_(module.norm.running_var, 0.5, 2.0)
    before = copy.deepcopy(module.state_dict())
    train(module, striped(), Settings(steps=5, batch=8, freeze_batch_norm=frozen, ema=3.0))
    after = module.state_dict()
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert torch.equal(after["norm.weight"], before["norm.weight"]) is not scales_move
    assert not torch.equal(after["stem.weight"], before["stem.weight"])


def test_statistics_move_where_nothing_is_frozen():
    module = small()
    before = module.norm.running_mean.clone()
    train(module, striped(), Settings(steps=3, batch=8))
    assert not torch.equal(before, module.norm.running_mean) and module.norm.num_batches_tracked == 3


def test_rates_by_depth_are_geometric():
    assert [depth_factor(d, 0.01) for d in (0.0, 0.5, 1.0)] == pytest.approx([0.01, 0.1, 1.0])
    module = small()
    depths = layers.depths(module)
    assert depths["stem.weight"] == 0.0 and depths["head.bias"] == 1.0
    assert depths["depth.weight"] == pytest.approx(2 / 6)
    settings = Settings(steps=10, rate=0.2, rates=0.01, optimizer="sgd", weight_decay=0.1)
    optimizers = make_optimizers(module, dict(module.named_parameters()), settings)
    set_rates(optimizers, 0.5)
    rates = {id(p): group for o in optimizers for group in o.param_groups for p in group["params"]}
    assert rates[id(module.head.weight)]["lr"] == pytest.approx(0.1)
    assert rates[id(module.stem.weight)]["lr"] == pytest.approx(0.001)
    assert rates[id(module.depth.weight)]["lr"] == pytest.approx(0.1 * 0.01 ** (4 / 6))
    assert (
        rates[id(module.norm.weight)]["weight_decay"] == 0.0 < rates[id(module.stem.weight)]["weight_decay"]
    )


def test_one_step_of_sgd_by_hand():
    module = nn.Linear(3, 2)
    data = tensor_data(np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    expected = copy.deepcopy(module)
    F.cross_entropy(expected(data.arrays[0]), data.labels).backward()
    settings = Settings(
        steps=1, batch=3, rate=0.5, schedule="constant", warmup=0, optimizer="sgd", weight_decay=0
    )
    train(module, data, settings)
    # Nesterov's first step from rest is (1 + momentum) times the gradient
    torch.testing.assert_close(module.weight, expected.weight - 0.5 * 1.9 * expected.weight.grad)


def test_muon_takes_matrices_but_no_stem_depthwise_or_classifier():
    module = small()
    muon, adam = make_optimizers(module, dict(module.named_parameters()), Settings(steps=1, optimizer="muon"))
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(module.project.weight)]
    assert sum(len(group["params"]) for group in adam.param_groups) == 10


def test_the_average_by_hand():
    """A weight that is set to 1, 2, 3 by its objective: the average follows by its decays."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 5.0)
    seen = []

    def objective(inputs, labels, strength):
        with torch.no_grad():
            module.weight.fill_(float(len(seen)))  # the first call is the trial that chooses the layout
        seen.append(1)
        return 0.0 * module.weight.sum()

    data = tensor_data(np.zeros((4, 1), np.float32))
    fit(module, objective, data, Settings(steps=3, batch=2, ema=3.0, weight_decay=0.0), {})
    expected = 5.0
    for step, weight in enumerate((1.0, 2.0, 3.0)):
        decay = ema_decay(step, 3.0)
        expected = decay * expected + (1 - decay) * weight
    assert [ema_decay(s, 3.0) for s in (0, 1, 90)] == pytest.approx([1 / 11, 2 / 12, 2 / 3])
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_batch_norm_is_recalibrated_for_the_average():
    module, data = small(), striped()
    train(module, data, Settings(steps=8, batch=16, rate=2e-2, ema=5.0, recalibrate=64))
    stem = module.stem(torch.cat([data.batches(8 + i, 16, None, 0)[0][0] for i in range(4)]))
    torch.testing.assert_close(module.norm.running_mean, stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert module.norm.momentum == 0.1


def test_a_teacher_without_labels_and_an_ensemble():
    data = striped()
    teachers = [small(seed, 4) for seed in (1, 2)]
    for teacher in teachers:
        train(teacher, data, Settings(steps=60, batch=16, rate=2e-2))
    student, flags = small(3), [t.training for t in teachers]
    hashes = [weights_sha256(t) for t in teachers]
    unlabelled = striped(labels=False)
    train(student, unlabelled, Settings(steps=80, batch=16, rate=2e-2), teacher=teachers)
    assert accuracy(student, data) > 0.9
    assert hashes == [weights_sha256(t) for t in teachers] and flags == [t.training for t in teachers]


def test_outputs_are_matched_as_they_are():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.a(x), self.b(x)

    data = tensor_data(np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32))
    student, teacher = Two(), Two()
    settings = Settings(steps=150, batch=32, rate=5e-2, weight_decay=0.0, match="outputs")
    record = train(student, data, settings, teacher=teacher)
    assert record.losses[-1] < 1e-3 < record.losses[0]
    with pytest.raises(UsageError, match="no logits"):
        train(Two(), striped(), Settings(steps=1), loss=None) if False else train(
            Two(), data, Settings(steps=1)
        )


def test_a_loss_of_the_callers_own_gets_outputs_labels_and_answers():
    seen = []

    def loss(outputs, labels, answers):
        seen.append((outputs.shape, labels.shape, [a.shape for a in answers]))
        return outputs.square().mean()

    module = small()
    train(module, striped(), Settings(steps=2, batch=8), loss=loss, teacher=small(1))
    assert seen[-1] == ((8, 4), (8,), [torch.Size((8, 4))])
    with pytest.raises(UsageError, match="mixup"):
        train(module, striped(), Settings(steps=2, mixup=0.2), loss=loss)


def test_a_module_that_views_its_channels_is_trained_in_rows():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 100, 4)

        def forward(self, x):
            x = self.conv(x)
            return self.head(x.view(x.size(0), -1))

    assert train(Views(), striped(), Settings(steps=2, batch=8)).steps == 2


def test_dense_labels_and_pixels_that_do_not_count():
    labels = np.random.default_rng(0).integers(0, 3, (8, 6, 6))
    labels[:, :3] = 255
    data = tensor_data(np.random.default_rng(1).standard_normal((8, 3, 6, 6)).astype(np.float32), labels)
    module = nn.Conv2d(3, 3, 1)
    record = train(module, data, Settings(steps=1, batch=8, rate=1e-9))
    with torch.no_grad():
        inputs, classes = data.batches(0, 8, None, 0)
        expected = F.cross_entropy(module(*inputs)[:, :, 3:], classes[:, 3:])
    assert record.losses[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "said"), (([0, 9], "label 9 for a model of 4 classes"), (None, "no labels"))
)
def test_labels_that_do_not_fit_are_refused(labels, said):
    data = tensor_data(np.zeros((2, 3, 12, 12), np.float32), labels and np.array(labels))
    with pytest.raises(DataError, match=said):
        train(small(), data, Settings(steps=1, batch=2))


def test_a_loss_that_is_not_finite_stops_with_its_step():
    with pytest.raises(TrainError, match="the loss is nan at step 0"):
        train(small(), striped(), Settings(steps=2, batch=4), loss=lambda o, l, a: o.sum() * float("nan"))


def test_stages_resize_and_regularise_more_and_more():
    strengths, sizes = [], []
    module = small()

    def objective(inputs, labels, strength):
        strengths.append(strength)
        sizes.append((len(inputs[0]), inputs[0].shape[-1]))
        return module(*inputs).square().mean()

    stages = ((0.5, 8, 4), (0.5, 12))
    record = fit(module, objective, striped(), Settings(steps=4, batch=2, stages=stages), {})
    assert record.stages == ((8, 4, 2), (12, 2, 2))
    assert sizes[1:] == [(4, 8), (4, 8), (2, 12), (2, 12)] and strengths[1:] == [0.5, 0.5, 1.0, 1.0]


def test_a_length_becomes_steps():
    assert plan_steps((Stage(0.3, 64), Stage(0.3, 96), Stage(0.4, 128)), 11).steps == (3, 4, 4)
    plan = plan_each((Stage(0.5, 64), Stage(0.5, 96)), (30.2, 9.8))
    assert plan.steps == (30, 10) and plan.total == 40
    assert [plan.stage(s) for s in (0, 29, 30, 39, 99)] == [0, 0, 1, 1, 1]
    assert plan.progress(29) == pytest.approx(0.5 * 29.5 / 30) and plan.progress(39) == pytest.approx(0.975)
    record = train(small(), striped(), Settings(epochs=1.5, batch=16))
    assert record.steps == 6
    record = train(small(), striped(), Settings(minutes=0.005, batch=4))
    assert 1 <= record.steps < 2000


def test_progress_is_told_from_nothing_to_all():
    told = []
    train(
        small(),
        striped(),
        Settings(steps=5, batch=4),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[0] == (0, 5) and told[-1] == (5, 5) and told == sorted(told)


@pytest.mark.parametrize(
    ("settings", "said"),
    (
        ({}, "no length: exactly one"),
        ({"steps": 3, "minutes": 1}, "steps and minutes: exactly one"),
        ({"steps": 0}, "steps 0: above 0"),
        ({"steps": 3, "rate": -1}, "rate -1: above 0"),
        ({"steps": 3, "schedule": "cosin"}, "did you mean cosine"),
        ({"steps": 3, "stages": ((0.5, 32),)}, "add up to 0.5"),
        ({"steps": 3, "hard_share": 1.5}, "from 0 to 1"),
        ({"steps": 3, "trainable": "tail"}, "no trainable 'tail'"),
    ),
)
def test_settings_that_cannot_be_right(settings, said):
    with pytest.raises(UsageError, match=said):
        Settings(**settings)


def test_epochs_of_an_endless_set_and_a_head_without_weights():
    class Endless:
        count, identity = None, {}

        def batches(self, step, batch, size, seed):
            return (torch.zeros(batch, 3, 8, 8),), torch.zeros(batch, dtype=torch.int64)

    with pytest.raises(UsageError, match="never ends"):
        train(small(), Endless(), Settings(epochs=1))
    with pytest.raises(UsageError, match="no layer with weights"):
        train(nn.BatchNorm2d(3), Endless(), Settings(steps=1, trainable="head"))


def test_the_rates_of_a_schedule():
    step = Settings(steps=1, schedule="step", warmup=0.1)
    assert [rate_at(p, step) for p in (0.05, 0.3, 0.6, 0.9)] == pytest.approx([0.5, 1.0, 0.1, 0.01])
    constant = Settings(steps=1, schedule="constant", warmup=0.1)
    assert [rate_at(p, constant) for p in (0.05, 0.3, 1.0)] == pytest.approx([0.5, 1.0, 1.0])
