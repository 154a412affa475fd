"""The directory that ships: a model file and everything an app needs to use it right.

    model.tflite     or model.onnx, or model.xml with model.bin; model.rejected.* when a gate failed
    manifest.json    sha256 of every file, signature, tensors with scale and zero point, preprocessing in
                     words and numbers, calibration set, weights, recipe, edgekit version
    labels.txt       one class name a line, line i is output i
    golden/          raw image -> expected input tensor -> expected output tensor -> top-5, as a test to run
    MODEL_CARD.md    what it is, what it is for, what it is not

In: bytes, arrays and plain dicts. Out: the directory, written whole or not at all. No torch, no graph; no
name that comes from a model, a class list or an archive becomes a path unchecked.
"""

from edgekit.bundle.archive import pack, unpack
from edgekit.bundle.check import BundleCheck, check_bundle
from edgekit.bundle.names import safe_name
from edgekit.bundle.write import rejected_name, write_bundle

__all__ = ["BundleCheck", "check_bundle", "pack", "rejected_name", "safe_name", "unpack", "write_bundle"]
