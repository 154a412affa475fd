"""Checkpoints as training scripts save them: the right values under the module's own names, or one line."""

import argparse
import collections
import datetime
import gzip
import io
import os
import pathlib
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from edgekit.errors import WeightsError
from edgekit.zoo.checkpoint import fit_state, read_state


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 3)


def _state(seed):
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (k, torch.tensor(seed) if k.endswith("tracked") else torch.rand(v.shape, generator=generator))
        for k, v in Net().state_dict().items()
    )


S, RAW = _state(1), _state(2)  # S is what is meant; RAW is there to be mistaken for it
OPTIMIZER = {
    "state": {
        i: {"step": torch.tensor(3.0), "exp_avg": v, "exp_avg_sq": v} for i, v in enumerate(RAW.values())
    },
    "param_groups": [{"lr": 0.1, "params": [0, 1]}],
}


def under(prefix, state):
    return OrderedDict((f"{prefix}{k}", v) for k, v in state.items())


def parameters(state):
    return OrderedDict((k, v) for k, v in state.items() if "running" not in k and "tracked" not in k)


def without(state, text):
    return OrderedDict((k, v) for k, v in state.items() if text not in k)


SHAPES = {
    "plain": S,
    **{
        name: {name: S, "epoch": 3, "optimizer": OPTIMIZER}
        for name in (
            "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights",
            "params", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "generator", "best_weights",
        )
    },
    **{
        f"prefix {prefix}": under(prefix, S)
        for prefix in (
            "module.", "model.", "net.", "network.", "backbone.", "encoder.", "_orig_mod.",
            "module._orig_mod.", "_orig_mod.module.", "model.model.", "student.net.", "_fsdp_wrapped_module.",
        )
    },
    "lightning": {
        "state_dict": under("model.", S) | {"criterion.weight": torch.rand(3), "acc.x": torch.zeros(2, 2)},
        "epoch": 3, "pytorch-lightning_version": "2.1", "optimizer_states": [OPTIMIZER], "callbacks": {},
        "hyper_parameters": {"lr": 0.1},
    },
    "lightning without a prefix": {
        "state_dict": S | {"criterion.weight": torch.rand(3), "val_acc.confmat": torch.zeros(2, 2)},
    },
    "lightning with an average": {
        "state_dict": under("model.", RAW) | under("ema_model.module.", S) | {"loss.weight": torch.rand(3)},
    },
    "compiled submodules": OrderedDict(
        (k.replace("layer1.", "layer1._orig_mod."), v) for k, v in S.items()
    ),
    "backbone and head": {
        "state_dict": under("backbone.", without(S, "fc")) | {
            "head.fc.weight": S["fc.weight"], "head.fc.bias": S["fc.bias"],
        },
        "meta": {"mmpretrain_version": "1.0", "CLASSES": ["a"]},
    },
    "raw and ema": {"model": RAW, "ema": S},
    "ema and raw": {"ema": S, "model": RAW},
    "torchvision references": {"model": RAW, "model_ema": under("module.", S), "optimizer": OPTIMIZER},
    "timm": {"state_dict": RAW, "state_dict_ema": S, "arch": "net", "metric": 80.1},
    "restorers": {"params": RAW, "params_ema": S},
    "ema in a module": {"net": RAW, "ema": {"module": S, "updates": 300, "decay": 0.999}},
    "ema of parameters alone": {"model": RAW, "ema": {"decay": 0.9, "shadow": parameters(S)}},
    "teacher and student": {"student": RAW, "teacher": S},
    "online and average": under("online_model.", RAW) | under("ema_model.", S) | {"step": S["bn1.bias"]},
    "swa": {"model": RAW, "swa": under("module.", S) | {"n_averaged": torch.tensor(4)}},
    "averaged model": under("module.", S) | {"n_averaged": torch.tensor(4)},
    "two networks": {"discriminator": {"conv1.weight": torch.rand(4, 4)}, "network_of_mine": S},
    "nested twice": {"checkpoint": {"model": under("module.", S)}, "config": {"lr": 1}},
    "a list": [S, OPTIMIZER],
    "a tuple": (S, 12),
    "optimizer first": {"optimizer": OPTIMIZER, "optimizer_state_dict": OPTIMIZER, "net": S},
    "class weights beside": {"class_weights": torch.rand(3, 3), "model": S},
    "half": {"model": OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in S.items())},
    "double": OrderedDict((k, v.double() if v.is_floating_point() else v) for k, v in S.items()),
    "parameters": OrderedDict((k, nn.Parameter(v) if v.is_floating_point() else v) for k, v in S.items()),
    "numpy": {k: v.numpy() for k, v in S.items()},
    "counters missing": without(S, "tracked"),
    "arguments": {"model": S, "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a")), "epoch": 1},
    "numpy scalars": {"model": S, "best": np.float64(0.81), "top5": np.float32(0.9), "seen": np.arange(3)},
    "dates and logs": {
        "model": S, "date": datetime.date(2024, 5, 1), "log": collections.OrderedDict(loss=[1.0]),
    },
}  # fmt: skip


def _loaded(path, trust=False, entry=""):
    module = Net().eval()
    state, where = read_state(path, trust, set(module.state_dict()), entry=entry)
    fit_state(module, state, None, str(path))
    return module.state_dict(), where


def _same(state, expected, counters=True):
    return all(torch.equal(state[k], v) for k, v in expected.items() if counters or not k.endswith("tracked"))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_checkpoints(tmp_path, shape):
    path = tmp_path / "x.pth"
    torch.save(SHAPES[shape], path)
    state, _ = _loaded(path)
    expected = S
    if shape == "half":
        expected = {k: v.half().float() if v.is_floating_point() else v for k, v in S.items()}
    if shape == "ema of parameters alone":  # its running statistics are those of the raw weights beside it
        expected = RAW | parameters(S)
    assert _same(state, expected, counters=shape not in ("counters missing", "ema of parameters alone"))


def test_there_are_enough_shapes():
    assert len(SHAPES) >= 46


@pytest.mark.parametrize(
    ("shape", "entry", "expected", "where"),
    [
        ("raw and ema", "", S, "ema], not [model"),
        ("raw and ema", "model", RAW, "model"),
        ("raw and ema", "ema", S, "ema"),
        ("timm", "", S, "state_dict_ema], not [state_dict"),
        ("timm", "state_dict", RAW, "state_dict"),
        ("ema in a module", "ema", S, "ema.module"),
        ("ema in a module", "net", RAW, "net"),
        ("online and average", "", S, "ema_model.*], not [online_model.*"),
        ("online and average", "online_model", RAW, "online_model.*"),
        ("lightning with an average", "model", RAW, "state_dict"),
        ("teacher and student", "student", RAW, "student"),
    ],
)
def test_which_of_two_was_taken_is_said_and_can_be_chosen(tmp_path, shape, entry, expected, where):
    path = tmp_path / "x.pth"
    torch.save(SHAPES[shape], path)
    state, said = _loaded(path, entry=entry)
    assert _same(state, expected)
    assert said == where or said.startswith(where)


def test_an_average_that_lacks_layers_is_not_taken_in_silence(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": S, "ema": without(RAW, "fc")}, path)
    state, where = _loaded(path)
    assert _same(state, S)
    assert where == "model], not [ema: incomplete"


def test_an_unknown_entry_names_those_there_are(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(SHAPES["raw and ema"], path)
    with pytest.raises(WeightsError, match=r"no entry 'emaa'; did you mean ema\?: one of ema, model"):
        _loaded(path, entry="emaa")


def test_a_module_whose_names_have_a_prefix_takes_a_state_without(tmp_path):
    module = nn.Sequential(OrderedDict(model=Net()))
    torch.save({"state_dict": S}, tmp_path / "x.pth")
    state, _ = read_state(tmp_path / "x.pth", known=set(module.state_dict()))
    fit_state(module, state, None)
    assert _same(module.model.state_dict(), S)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.ckpt", "x.pth.tar", "x"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_under_any_name(tmp_path, name, prefix):
    save_file(under(prefix, S), tmp_path / name)
    assert _same(_loaded(tmp_path / name)[0], S)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.ckpt", "x.pth.tar"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_under_any_name(tmp_path, name, zipped):
    torch.save({"model": S}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert _same(_loaded(tmp_path / name)[0], S)


@pytest.mark.parametrize("name", [b"caf\xe9.pth", b"caf\xe9.safetensors"])
def test_names_that_are_not_utf8(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    if path.suffix == ".pth":
        stream = io.BytesIO()
        torch.save({"model": S}, stream)
        path.write_bytes(stream.getvalue())
    else:
        path.write_bytes(save(S))
    assert _same(_loaded(path)[0], S)


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/x.pth", b"1234")


def _tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


FOREIGN = {
    "lfs": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "Git LFS",
    ),
    "html": (lambda p: p.write_bytes(b"<!DOCTYPE html><html></html>"), "a web page"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "compressed"),
    "zip": (_zip, "an archive of weights/x.pth"),
    "tar": (_tar, "tar format"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read"),
    "text": (lambda p: p.write_bytes(b"hello"), "cannot be read"),
    "cut safetensors": (lambda p: (save_file(S, p), p.write_bytes(p.read_bytes()[:400])), "cannot be read"),
    "history": (lambda p: torch.save({"epoch": 3, "history": [1, 2]}, p), "epoch, history"),
    "defaultdict": (
        lambda p: torch.save({"model": S, "log": collections.defaultdict(list, loss=[1.0])}, p),
        "holds pickled Python objects",
    ),
    "tensors without names": (lambda p: torch.save(list(S.values()), p), r"\(list\)"),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_what_is_no_checkpoint_is_named(tmp_path, what, name):
    if what == "tensors without names" and name == "x.safetensors":
        name = "y.pth"
    make, words = FOREIGN[what]
    path = tmp_path / name
    make(path)
    with pytest.raises(WeightsError, match=words) as caught:
        _loaded(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert what in ("tar", "defaultdict") or "--trust" not in str(caught.value)


def test_another_network_is_refused_by_its_names(tmp_path):
    torch.save({"state_dict": {"stem.weight": torch.rand(2, 3, 1, 1)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"missing conv1\.weight.*unexpected stem\.weight"):
        _loaded(tmp_path / "x.pth")
