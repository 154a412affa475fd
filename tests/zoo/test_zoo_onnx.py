import hashlib
import warnings

import pytest
import torch
from small_models import small_module

from edgekit.errors import ArtifactError, CaptureError, UnknownModelError, UsageError, WeightsError
from edgekit.zoo import resolve


def written(path, shape=(1, 3, 32, 32), **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces its newer exporter
        torch.onnx.export(small_module(), (torch.zeros(shape),), str(path), dynamo=False, **settings)
    return str(path)


def test_an_onnx_file_is_a_model(offline):
    path = offline / "small.onnx"
    model = resolve(written(path))
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model.module(image), small_module()(image), rtol=1e-4, atol=1e-5)
    assert (model.name, model.source, model.input_shape) == ("small", "onnx", (1, 3, 32, 32))
    assert model.weights == {
        "kind": "file",
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "untrained": False,
    }
    assert model.class_names is None and model.preprocessing.resolution == 32
    assert not model.module.eval().training
    with pytest.raises(UsageError, match="training mode"):
        model.module.train()


def test_an_open_side_takes_the_resolution(offline):
    axes = {"input": {0: "n", 2: "h", 3: "w"}}
    spec = written(offline / "open.onnx", input_names=["input"], dynamic_axes=axes)
    with pytest.raises(CaptureError, match="--resolution PIXELS"):
        resolve(spec)
    assert resolve(spec, resolution=40).input_shape == (1, 3, 40, 40)


def test_what_a_file_cannot_honour(offline):
    spec = written(offline / "small.onnx")
    with pytest.raises(UsageError, match="exported for 32 px, 64 were asked for"):
        resolve(spec, resolution=64)
    with pytest.raises(WeightsError, match="holds its own weights"):
        resolve(spec, "imagenet")
    with pytest.raises(UsageError, match="number of classes was fixed"):
        resolve(spec, num_classes=3)
    with pytest.raises(UnknownModelError, match="no such file"):
        resolve(str(offline / "absent.onnx"))
    (offline / "bad.onnx").write_bytes(b"\x08\x01nonsense")
    with pytest.raises(ArtifactError, match="a whole ONNX file"):
        resolve(str(offline / "bad.onnx"))


def test_pictures_of_any_shape(offline):
    wide = resolve(written(offline / "wide.onnx", (1, 3, 32, 40)))
    assert wide.input_shape == (1, 3, 32, 40) and wide.preprocessing.resolution == 32
    with pytest.raises(UsageError, match="exported for 40 x 32 px, 64 were asked for"):
        resolve(str(offline / "wide.onnx"), resolution=64)
