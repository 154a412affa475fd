"""Training as a step of a build: by the loop or by a function of the user's; a captured graph as module."""

import json

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.errors import EdgekitError, TrainError, UsageError
from edgekit.graph.module import as_module
from edgekit.train import Settings, layers, run_training, train
from edgekit.train.checkpoint import weights_sha256
from tests.train.networks import small, striped

USER = """
import torch

def good(module, context):
    assert module.training and context.minutes is None and not context.teacher.training
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for step, (inputs, labels) in enumerate(context.batches(16)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(*inputs), labels).backward()
        optimizer.step()
        context.progress(step + 1, 5)
        if step == 4:
            break
    (context.directory / "mine").write_text("done")

def raises(module, context):
    return module.missing

def another(module, context):
    return torch.nn.Linear(1, 1)

def broken(module, context):
    with torch.no_grad():
        module.head.weight.fill_(float("nan"))

def larger(module, context):
    module.more = torch.nn.Linear(2, 2)
"""


@pytest.fixture
def user(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER)
    return path


def test_a_function_of_the_users_own(user, tmp_path):
    module, told = small(), []
    before = weights_sha256(module)
    record = run_training(
        module,
        striped(),
        Settings(steps=5),
        teacher=small(1),
        function=f"{user}:good",
        directory=tmp_path / "work",
        progress=lambda done, total: told.append((done, total)),
    )
    assert json.loads(json.dumps(record))["weights"] == weights_sha256(module) != before
    assert not module.training and all(p.grad is None for p in module.parameters())
    assert told[-1] == (5, 5) and (tmp_path / "work" / "mine").exists()


@pytest.mark.parametrize(
    ("name", "error", "said"),
    (
        ("raises", UsageError, "raised AttributeError"),
        ("another", UsageError, "returned Linear: nothing, or the module"),
        ("broken", TrainError, "left head.weight with values that are not finite"),
        ("larger", UsageError, "other parameters"),
        ("god", EdgekitError, "no function 'god'; did you mean good"),
    ),
)
def test_a_function_that_goes_wrong_is_one_line(user, tmp_path, name, error, said):
    with pytest.raises(error, match=said) as raised:
        run_training(small(), striped(), Settings(steps=1), function=f"{user}:{name}", directory=tmp_path)
    assert "\n" not in str(raised.value)


def test_by_the_loop_with_a_checkpoint(tmp_path):
    module = small()
    record = run_training(module, striped(), Settings(steps=3, batch=8), directory=tmp_path / "w")
    assert json.loads(json.dumps(record))["steps"] == 3 and (tmp_path / "w" / "training.pt").exists()
    assert record["settings"]["batch"] == 8


def graph_of(module):
    return capture(module.eval(), (torch.zeros(1, 3, 12, 12),), "small", training=True)


def test_a_captured_graph_trains_as_its_module_does():
    """Same parameters by the same names, the same layers in the same order, the same weights afterwards."""
    original = small()
    original.drop = nn.Identity()  # its random numbers are drawn in another order
    module, graph = original, as_module(graph_of(original))
    assert dict(module.named_parameters()).keys() == dict(graph.named_parameters()).keys()
    assert layers.matrices(graph) == layers.matrices(module) == {"project.weight"}
    assert layers.depths(graph) == layers.depths(module)
    assert layers.head(graph) == {"head.weight", "head.bias"} and layers.norms(graph) == layers.norms(module)
    assert set(layers.batch_norms(graph)) == {"norm", "depth_norm", "project_norm"}
    settings = Settings(steps=12, batch=16, rate=1e-2, optimizer="muon", ema=4.0)
    train(module, striped(), settings)
    train(graph, striped(), settings)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(dict(graph.named_parameters())[name], parameter, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graph.norm.running_mean, module.norm.running_mean, rtol=1e-4, atol=1e-5)


def test_a_graph_goes_on_exactly(tmp_path):
    graph = graph_of(small())
    settings = Settings(steps=8, batch=8, checkpoint_seconds=1e-9)
    expected = train(as_module(graph), striped(), settings, teacher=as_module(graph)).weights

    def stop(done, total):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            as_module(graph),
            striped(),
            settings,
            teacher=as_module(graph),
            checkpoint=tmp_path / "c",
            progress=stop,
        )
    again = as_module(graph)
    record = train(again, striped(), settings, teacher=as_module(graph), checkpoint=tmp_path / "c")
    assert record.weights == expected
    assert not torch.equal(again.to_graph().value("stem.weight").data, graph.value("stem.weight").data)


@pytest.mark.parametrize("frozen", ("statistics", "all"))
def test_frozen_statistics_of_a_graph(frozen):
    graph = as_module(graph_of(small()))
    before = {name: buffer.clone() for name, buffer in graph.named_buffers()}
    train(graph, striped(), Settings(steps=3, batch=8, freeze_batch_norm=frozen))
    assert all(torch.equal(buffer, before[name]) for name, buffer in graph.named_buffers())
