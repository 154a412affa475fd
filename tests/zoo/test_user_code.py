import pytest
import torch
from safetensors.torch import save_file
from small_models import user_file

from edgekit.errors import UnknownModelError, UsageError, WeightsError
from edgekit.zoo import resolve


def test_a_function_in_a_file_is_a_model(offline):
    path = user_file(offline)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    model, again = resolve(f"{path}:net"), resolve(f"{path}:net")
    assert torch.equal(before, torch.random.get_rng_state())
    assert (model.name, model.source, model.input_shape) == ("mine.net", "file", (1, 3, 48, 48))
    assert model.preprocessing.mean == (0.5, 0.5, 0.5) and model.preprocessing.std == (0.229, 0.224, 0.225)
    assert not model.module.training and model.module(torch.zeros(1, 3, 48, 48)).shape == (1, 5)
    assert model.weights["kind"] == "file" and model.weights["sha256"] == again.weights["sha256"]
    assert resolve(f"{path}:net", num_classes=9, resolution=64).module.head.out_features == 9
    assert resolve(f"{path}:net", resolution=64).input_shape == (1, 3, 64, 64)


def test_weights_of_user_code(offline):
    path = user_file(offline)
    assert resolve(f"{path}:fresh").weights["untrained"]
    drawn = [resolve(f"{path}:net", "random", seed=s).weights for s in (1, 1, 2)]
    assert all(w["kind"] == "random" and w["untrained"] for w in drawn)
    assert drawn[0]["sha256"] == drawn[1]["sha256"] != drawn[2]["sha256"]
    state = resolve(f"{path}:net", seed=8).module.state_dict()
    save_file(state, offline / "mine.safetensors")
    loaded = resolve(f"{path}:net", str(offline / "mine.safetensors"))
    assert torch.equal(loaded.module.head.weight, state["head.weight"]) and not loaded.weights["untrained"]
    with pytest.raises(WeightsError, match=r"missing conv\.bias, head\.weight"):
        save_file({"conv.weight": torch.zeros(4, 3, 3, 3)}, offline / "part.safetensors")
        resolve(f"{path}:net", str(offline / "part.safetensors"))
    with pytest.raises(WeightsError, match="no imagenet weights"):
        resolve(f"{path}:net", "imagenet")


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("nett", UnknownModelError, "did you mean net"),
        ("broken", UsageError, r"ValueError \(two lines\)"),
        ("nothing", UsageError, "returned int: an nn.Module"),
    ],
)
def test_functions_that_give_no_model(offline, function, kind, words):
    with pytest.raises(kind, match=words) as raised:
        resolve(f"{user_file(offline)}:{function}")
    assert "\n" not in str(raised.value)


def test_files_that_give_no_model(offline):
    with pytest.raises(UnknownModelError, match="no such file"):
        resolve(f"{offline}/absent.py:net")
    with pytest.raises(UsageError, match="which function"):
        resolve(str(user_file(offline)))
    (offline / "bad.py").write_text("def net(:\n")
    with pytest.raises(UsageError, match="SyntaxError"):
        resolve(f"{offline}/bad.py:net")
    with pytest.raises(UsageError, match="takes no num_classes"):
        resolve(f"{user_file(offline)}:fixed", num_classes=4)
