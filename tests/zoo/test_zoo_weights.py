import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import Bomb

from edgekit.data.shapes import CLASS_NAMES
from edgekit.errors import UsageError, WeightsError
from edgekit.zoo import cache, resolve, weights
from edgekit.zoo.libraries import build, published
from edgekit.zoo.names import Architecture

NAME = "shufflenet_v2_x0_5"  # 1.4 M parameters: quick to write and read
ARCHITECTURE = Architecture("torchvision", NAME)


@pytest.fixture(autouse=True)
def no_references(offline, monkeypatch):
    monkeypatch.setattr(weights, "REFERENCE_DIR", offline / "reference")


@pytest.fixture(scope="module")
def state():
    """Weights for 24 classes, drawn from a seed no test resolves with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return build(ARCHITECTURE, 24).state_dict()


def same(module: torch.nn.Module, state: dict) -> bool:
    own = module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], v) for k, v in state.items())


def refusal(choice: str, name: str = NAME, **settings) -> str:
    """The one line a choice of weights is refused with."""
    with pytest.raises(WeightsError) as raised:
        resolve(name, choice, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_random_weights_are_said_to_be_untrained_and_follow_the_seed():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (resolve(NAME, "random", seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.weights["untrained"] and first.weights["kind"] == "random"
    assert "UNTRAINED" in first.weights["source"] and first.class_names is None
    assert first.weights["sha256"] == again.weights["sha256"] != other.weights["sha256"]
    assert same(again.module, first.module.state_dict())
    assert not first.module.training and first.input_shape == (1, 3, 224, 224)


def test_auto_without_anything_at_hand_is_random_and_fetches_nothing():
    assert resolve(NAME).weights["kind"] == "random"


def test_resolution_moves_the_preprocessing_and_the_module_with_it():
    model = resolve("mobilenet_v2", resolution=160)
    assert model.input_shape == (1, 3, 160, 160)
    assert (model.preprocessing.resolution, model.preprocessing.resize) == (160, 166)
    vision = resolve("timm:vit_tiny_patch16_224", resolution=64)
    assert vision.module(torch.zeros(vision.input_shape)).shape == (1, 1000)
    with pytest.raises(UsageError, match="made for 224"):
        resolve("vit_b_16", resolution=100)


def test_number_of_classes():
    assert resolve(NAME, num_classes=7).module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    lite = resolve("efficientnet_lite0", num_classes=7)
    assert lite.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("form", ["safetensors", "half", "plain", "nested", "average", "wrapped"])
def test_a_file_brings_its_own_number_of_classes(offline, state, form):
    path = offline / ("weights.safetensors" if form in ("safetensors", "half") else "weights.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "half":
        save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    else:
        zeros = {k: torch.zeros_like(v) for k, v in state.items()}
        held = {
            "plain": state,
            "nested": {"state_dict": state, "epoch": 3},
            "average": {"model": zeros, "model_ema": state, "optimizer": {"state": {}}},
            "wrapped": {
                "model": {"n_averaged": torch.tensor(4)} | {f"module.{k}": v for k, v in state.items()}
            },
        }[form]
        torch.save(held, path)
    model = resolve(NAME, str(path))
    loaded = model.module.state_dict()
    if form == "half":
        state = {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
    assert all(v.dtype == torch.float32 for v in loaded.values() if v.is_floating_point())
    assert same(model.module, state)
    assert model.weights["kind"] == "file" and not model.weights["untrained"]
    assert model.weights["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ("[model_ema]" in model.weights["source"]) == (form == "average")
    assert resolve(NAME, str(path), num_classes=24).weights["kind"] == "file"
    assert "24 classes (fc.weight), 10 were asked for" in refusal(str(path), num_classes=10)


def test_a_timm_checkpoint_brings_its_number_of_classes(offline):
    saved = build(Architecture("timm", "mobilenetv3_small_050"), 6).state_dict()
    save_file(saved, offline / "six.safetensors")
    assert same(resolve("mobilenetv3_small_050", str(offline / "six.safetensors")).module, saved)


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_first_names(offline, state):
    path = offline / "other.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("stage3")}, path)
    message = refusal(str(path))
    assert "missing stage3" in message and re.search(r"and \d+ more", message)
    torch.save(state | {"conv1.0.weight": torch.zeros(24, 3, 5, 5)}, path)
    assert "conv1.0.weight (24, 3, 5, 5) for (24, 3, 3, 3)" in refusal(str(path))
    torch.save(state | {"extra.weight": torch.zeros(2, 2)}, path)
    assert "unexpected extra.weight" in refusal(str(path))
    torch.save(state | {"conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)}, path)
    assert "not finite in conv1.0.weight" in refusal(str(path))
    assert "does not fit mobilenet_v2" in refusal(str(path), "mobilenet_v2")


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_is_not_run(offline, state, nested):
    trace, path = offline / "trace", offline / "bomb.pt"
    torch.save({"state_dict": state, "more": Bomb(trace)} if nested else Bomb(trace), path)
    assert "--trust" in refusal(str(path))
    assert not trace.exists()


def test_trust_unpickles_a_whole_module(offline, state):
    module = build(ARCHITECTURE, 24)
    module.load_state_dict(state)
    path = offline / "module.pt"
    torch.save(module, path)
    assert "--trust" in refusal(str(path))
    assert same(resolve(NAME, str(path), trust=True).module, state)


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth"])
def test_damaged_files_are_one_line(offline, state, file):
    path = offline / file
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint at all", whole[:7]):
        path.write_bytes(damaged)
        assert str(path) in refusal(str(path))


def test_files_without_a_state_dict(offline):
    torch.save({"epoch": 3, "history": [1, 2]}, offline / "history.pt")
    assert "epoch, history" in refusal(str(offline / "history.pt"))
    torch.save([1, 2], offline / "list.pt")
    assert "(list)" in refusal(str(offline / "list.pt"))
    message = refusal("imagnet")
    assert "did you mean imagenet" in message and "is no file" in message


def test_imagenet_offline_says_where_the_file_belongs_and_what_else_there_is(offline):
    message = refusal("imagenet")
    assert str(offline / "torch" / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth") in message
    assert "no connection to download.pytorch.org" in message
    assert "reference, random or FILE" in message
    message = refusal("imagenet", "efficientnet_lite0")
    assert str(offline / "hub" / "hub" / "models--timm--efficientnet_lite0.ra_in1k") in message
    assert "no connection to huggingface.co" in message


def test_imagenet_goes_through_the_proxy_and_honours_the_offline_switch(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "no connection to proxy.example" in refusal("imagenet")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal("imagenet", "efficientnet_lite0")


@pytest.mark.parametrize("name", [NAME, "mnasnet0_5", "googlenet"])
def test_imagenet_from_torchvisions_cache(name):
    architecture = Architecture("torchvision", name)
    held = build(architecture).state_dict()
    stored = dict(held)
    if name == "googlenet":  # the published file has the auxiliary classifiers
        stored["aux1.fc2.weight"] = torch.zeros(1000, 1024)
    cache.torch_checkpoints().mkdir(parents=True)
    path = cache.torch_checkpoints() / published(architecture).file_name
    torch.save(stored, path)
    for choice in ("imagenet", "auto"):
        model = resolve(name, choice)
        assert same(model.module, held)
        assert model.weights["kind"] == "imagenet" and not model.weights["untrained"]
        assert model.weights["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert len(model.class_names) == 1000 and model.class_names[0] == "tench"
    assert getattr(model.module, "transform_input", False) == (name == "googlenet")
    assert resolve(name, num_classes=9).weights["kind"] == "random"
    assert "1000 classes, 9 were asked for" in refusal("imagenet", name, num_classes=9)
    path.write_bytes(b"cut")
    assert str(path) in refusal("imagenet", name)


def test_densenet_files_with_the_old_spelling_fit():
    architecture = Architecture("torchvision", "densenet121")
    held = build(architecture).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v for k, v in held.items()}
    assert old.keys() != held.keys()
    cache.torch_checkpoints().mkdir(parents=True)
    torch.save(old, cache.torch_checkpoints() / published(architecture).file_name)
    assert same(resolve("densenet121", "imagenet").module, held)


def test_a_file_put_where_the_message_says_is_found(offline):
    architecture = Architecture("timm", "mobilenetv3_small_050")
    where = re.search(r"cache \((.*?)\)", refusal("imagenet", architecture.name))
    held = build(architecture).state_dict()
    path = Path(where.group(1))
    path.parent.mkdir(parents=True)
    save_file(held, path)
    assert same(resolve(architecture.name).module, held)


def test_imagenet_from_the_hubs_cache(offline):
    architecture = Architecture("timm", "mobilenetv3_small_050")
    held = build(architecture).state_dict()
    folder = offline / "hub" / "hub" / f"models--{published(architecture).hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    save_file(held, snapshot / "model.safetensors")
    for choice in ("imagenet", "auto"):
        model = resolve("mobilenetv3_small_050", choice)
        assert same(model.module, held) and model.weights["kind"] == "imagenet"
        assert model.class_names[0] == "tench"
    assert "1000 classes, 9" in refusal("imagenet", "mobilenetv3_small_050", num_classes=9)
    save_file({k: v for k, v in held.items() if k != "conv_stem.weight"}, snapshot / "model.safetensors")
    assert "conv_stem.weight" in refusal("imagenet", "mobilenetv3_small_050")


def test_imagenet_where_none_is_published():
    assert "publishes no weights" in refusal("imagenet", "mobilenetv1_050")


@pytest.fixture
def reference(offline, state):
    """A folder of references with one checkpoint, as the trainer writes it."""
    folder = offline / "reference"
    folder.mkdir()
    path = folder / f"{NAME}.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    row = {
        "source": "torchvision",
        "num_classes": 24,
        "class_names": list(CLASS_NAMES),
        "resolution": 96,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "accuracy": 0.91,
        "evaluation_images": 2000,
        "trained_with": "python -m trainer",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (folder / "index.json").write_text(json.dumps({NAME: row}))
    return path


@pytest.mark.parametrize("choice", ["auto", "reference"])
def test_reference_weights_come_with_what_is_known_of_them(reference, choice):
    model = resolve(NAME, choice)
    assert model.weights["kind"] == "reference" and not model.weights["untrained"]
    assert model.weights["accuracy"] == 0.91
    assert model.input_shape == (1, 3, 96, 96)
    assert model.preprocessing.mean == (0.5, 0.5, 0.5) and model.preprocessing.resize == 96
    assert model.module(torch.zeros(model.input_shape)).shape == (1, 24)
    assert model.class_names == (CLASS_NAMES if len(CLASS_NAMES) == 24 else None)


def test_reference_weights_that_cannot_be(reference):
    assert resolve(NAME, num_classes=5).weights["kind"] == "random"
    assert "24 classes, 5 were asked for" in refusal("reference", num_classes=5)
    assert f"(there are: {NAME})" in refusal("reference", "mobilenet_v2")
    with reference.open("ab") as stream:
        stream.write(b"x")
    assert str(reference) in refusal("reference")
