"""The zoo: a model's name -> the module, its weights and its preprocessing.

In: a spec and a choice of weights. Out: a `Model`, in eval mode, that says where its weights come from.
A spec is

    mobilenet_v3_large, mobilenetv3-large    a name, in either spelling; torchvision first, then timm
    tv:NAME, timm:NAME                       that library's model and no other
    path/to/file.py:function                 your code; it returns an nn.Module
    exported.pt2                             an archive written by torch.export.save
    model.onnx                               an ONNX file of any framework, float32 or QDQ

Auxiliary classifiers (googlenet, inception_v3) are left out. Modules that can be reparameterised (repvgg,
mobileone) come in the form they are trained in; surgery folds their branches.
Neither torch nor a model library is imported before the first `resolve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.zoo.model import Model

if TYPE_CHECKING:
    from edgekit.zoo.catalog import ModelInfo

__all__ = ["Model", "models", "resolve"]


def resolve(
    spec: str,
    weights: str = "auto",
    *,
    num_classes: int | None = None,
    trust: bool = False,
    resolution: int | None = None,
    seed: int = 0,
    images: str = "embedded",
) -> Model:
    """The model a spec names, with weights.

    Args:
        spec: see the module's docstring.
        weights: "auto" (the reference checkpoint; else ImageNet weights that are already in the cache; else
            random, of these the first that fits `num_classes`), "reference", "imagenet" (fetched when it is
            not in the cache), "random", or a .safetensors, .pt or .pth file, with FILE#ENTRY for one of
            several states in it.
        num_classes: outputs of the classifier; the checkpoint's own number when None.
        trust: unpickle what a file holds besides tensors. It can run any code: for your own files only.
        resolution: side of the input in pixels; the weights' own when None.
        seed: of the random weights; the caller's random state is left alone.
        images: the image set the model is to answer, see edgekit.data: reference checkpoints are those of
            "embedded-hard" for it.

    Raises:
        UnknownModelError: no library has that name.
        WeightsError: weights that are not there, do not fit or must not be unpickled.
        UsageError: a spec or an argument that cannot be right.
    """
    for what, number in (("num_classes", num_classes), ("resolution", resolution)):
        if number is not None and number < 1:
            raise UsageError(f"{what}: {number} is not possible: a whole number above 0")
    if spec.endswith(".pt2"):
        from edgekit.zoo.exported import load_exported

        return load_exported(spec, weights, num_classes, resolution, trust)
    if spec.endswith(".onnx"):
        from edgekit.zoo.onnx_file import load_onnx

        return load_onnx(spec, weights, num_classes, resolution)
    if spec.endswith(".py") or ".py:" in spec:
        from edgekit.zoo.user_code import load_user_code

        return load_user_code(spec, weights, num_classes, resolution, trust, seed)
    if spec.endswith((".pt", ".pth", ".safetensors", ".tflite")):
        raise UsageError(
            f"{spec}: a file of this kind does not say how to compute: "
            "a model name with --weights FILE, file.py:function, an exported .pt2 or an .onnx"
        )
    from edgekit.zoo.names import find_architecture
    from edgekit.zoo.weights import load_weights

    architecture = find_architecture(spec)
    loaded = load_weights(architecture, weights, num_classes, resolution, trust, seed, images)
    side = loaded.preprocessing.resolution
    return Model(
        architecture.name,
        architecture.source,
        loaded.module,
        loaded.preprocessing,
        loaded.class_names,
        loaded.record,
        (1, 3, side, side),
    )


def models(pattern: str | None = None) -> list[ModelInfo]:
    """The catalogue: names with parameters, MACs, resolution and the weights at hand."""
    from edgekit.zoo.catalog import models as catalogued

    return catalogued(pattern)
