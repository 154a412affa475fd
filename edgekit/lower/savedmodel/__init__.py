"""The TensorFlow hand-over (extra `tensorflow`): a prepared graph -> the files of a SavedModel directory.

What enters is lowered as for `tflite-float32`, which settles layout, names and signature; each operator of
that file is then rebuilt as a TensorFlow op, its weights as variables, so that a team can go on training.

    program     the float file read back: tensors, steps, which dimensions count images
    call        one trace of the serving function
    operators   one function for each TFLite operator: what TensorFlow computes for it
    module      program -> tf.Module with its serving function
    worker      the process in which TensorFlow writes the directory

Names are resolved on first use: the worker needs `module` only and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.lower.savedmodel.lowering import lower, prepare, program_of, unsupported

__all__ = ["lower", "prepare", "program_of", "unsupported"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("edgekit.lower.savedmodel.lowering"), name)
