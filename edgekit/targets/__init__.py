"""What each runtime really accelerates, as data: one file per format family, no code that lowers anything.

Enters: a target's name. Leaves: a frozen `Target`. `TARGETS` lists every one by name.
"""

from __future__ import annotations

from edgekit.errors import UsageError, did_you_mean
from edgekit.targets.onnx import ONNX_TARGETS
from edgekit.targets.openvino import OPENVINO_TARGETS
from edgekit.targets.promises import Promises
from edgekit.targets.savedmodel import SAVEDMODEL_TARGETS
from edgekit.targets.target import Target
from edgekit.targets.tflite import TFLITE_TARGETS
from edgekit.targets.words import Words

TARGETS: dict[str, Target] = {
    target.name: target for target in (*TFLITE_TARGETS, *ONNX_TARGETS, *OPENVINO_TARGETS, *SAVEDMODEL_TARGETS)
}


def get_target(name: str) -> Target:
    """The target called `name`. Raises UsageError naming the near ones."""
    if name not in TARGETS:
        hint = did_you_mean(name, TARGETS) or f": one of {', '.join(TARGETS)}"
        raise UsageError(f"[target] {name!r} is not a target{hint}")
    return TARGETS[name]


def words_of(runtime: str) -> Words:
    """How the files of a runtime are spoken of, by its name."""
    return next(target.words for target in TARGETS.values() if target.runtime == runtime)


__all__ = ["TARGETS", "Promises", "Target", "get_target", "words_of"]
