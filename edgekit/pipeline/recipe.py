"""What to build and what to demand of it: TOML plus flags -> frozen dataclasses, one per stage.

Sections follow stage order; an absent section means its defaults.
Every setting is checked by name and type, and an unknown one is refused with the nearest known name.
Knows nothing of torch, so that reading a recipe costs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Data:
    """source: "embedded" or "imagefolder:PATH"; counts are images."""

    source: str = "embedded"
    calibration: int = 128
    evaluation: int = 2000


@dataclass(frozen=True)
class Quantize:
    """Post-training quantization; see edgekit.quantize.QuantizeSettings for what each part does.

    quantizer: "nncf" lets NNCF decide OpenVINO's integers from the same calibration images, to compare with.
    """

    mode: Literal["ptq"] = "ptq"
    quantizer: Literal["edgekit", "nncf"] = "edgekit"
    profile: Literal["fast", "thorough"] = "thorough"
    ranges: Literal["auto", "minmax", "trim", "mse"] | None = None
    equalize: bool | None = None
    weight_mse: bool | None = None
    gptq: bool | None = None
    bias_correction: bool | None = None


@dataclass(frozen=True)
class Target:
    """names: artifacts to build; io: dtype of the model's input and output, None for the target's own.

    dynamic_batch: leave the batch open in formats that can (ONNX, OpenVINO); TFLite files stay at 1.
    """

    names: tuple[str, ...] = ("tflite-int8",)
    io: Literal["int8", "uint8", "float32"] | None = None
    dynamic_batch: bool = False


@dataclass(frozen=True)
class Verify:
    """Thresholds of the gates; "off" in a recipe (None here) makes one a remark instead of a gate.

    max_lsb: largest difference between the integer simulation and the runtime, in output steps.
    max_top1_drop: accuracy the artifact may lose against the float reference, as a fraction.
    min_agreement: share of evaluation images on which float and artifact answer alike.
    min_pairwise_agreement: the same between every two int8 artifacts of one build.
    tensorflow: run .tflite files under TensorFlow's own interpreter too (extra `tensorflow`).
    max_partitions, max_undelegated, max_transposes: counts, read from the runtime and the file.
    min_int8_share: share of operators that compute in int8, read from the file.
    max_size_bytes: of the model file. max_latency_ratio: p50 of the artifact over p50 of the float file.
    """

    max_lsb: int | None = 1
    max_top1_drop: float | None = 0.015
    min_agreement: float | None = None
    min_pairwise_agreement: float | None = 0.99
    tensorflow: bool = False
    max_partitions: int | None = None
    max_undelegated: int | None = None
    max_transposes: int | None = None
    min_int8_share: float | None = None
    max_size_bytes: int | None = None
    max_latency_ratio: float | None = 1.0


@dataclass(frozen=True)
class Device:
    """Where latency is measured. profile "publish": at least 5 fresh processes and 1,000 samples."""

    names: tuple[str, ...] = ("host",)
    profile: Literal["quick", "publish", "off"] = "quick"
    threads: int = 1


@dataclass(frozen=True)
class Recipe:
    """model: a name, timm:NAME, tv:NAME, FILE.py:FUNCTION or an exported .pt2; weights: see edgekit.zoo."""

    model: str
    weights: str = "auto"
    resolution: int | None = None
    seed: int = 0
    data: Data = field(default_factory=Data)
    quantize: Quantize = field(default_factory=Quantize)
    target: Target = field(default_factory=Target)
    verify: Verify = field(default_factory=Verify)
    device: Device = field(default_factory=Device)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back, tuples as lists."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def load(path: str | os.PathLike[str], overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a TOML recipe. `overrides` has the same nesting and wins; None values in it are ignored."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe ({error.strerror}): a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML ({error})") from error
    return from_dict(_merge(content, without_none(overrides or {})), str(path))


def shipped() -> dict[str, Path]:
    """The recipes that come with edgekit, by name; `edgekit build NAME` starts from the one of that name."""
    try:
        folder = Path(str(importlib.resources.files("edgekit_recipes")))
    except ModuleNotFoundError:  # a source tree that is not installed
        folder = Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def shipped_for(model: str) -> Path | None:
    """The shipped recipe of a model's name, in any spelling."""

    def plain(name: str) -> str:
        return name.lower().replace("_", "").replace("-", "")

    return {plain(name): path for name, path in shipped().items()}.get(plain(model))


def from_dict(content: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a Recipe from nested plain data, checking every name and type."""
    if "model" not in content:
        raise UsageError(f'{where}: no model: model = "mobilenet_v3_large"')
    recipe = _section(Recipe, content, where, "")
    if not recipe.target.names:
        raise UsageError(f'{where}: [target] names is empty: name at least one, like "tflite-int8"')
    for name, count in (("calibration", recipe.data.calibration), ("evaluation", recipe.data.evaluation)):
        if count < 1:
            raise UsageError(f"{where}: [data] {name} = {count}: at least 1 image")
    if recipe.device.threads < 1:
        raise UsageError(f"{where}: [device] threads = {recipe.device.threads}: at least 1")
    return recipe


def without_none(content: dict[str, Any]) -> dict[str, Any]:
    """Nested plain data less the settings nobody gave."""
    kept = {k: without_none(v) if isinstance(v, dict) else v for k, v in content.items() if v is not None}
    return {k: v for k, v in kept.items() if v != {}}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def _section(cls: type, content: Any, where: str, name: str) -> Any:
    label = f"{where}: [{name}]" if name else where
    if not isinstance(content, dict):
        raise UsageError(f"{label} is {content!r}: a section with settings")
    hints = typing.get_type_hints(cls)
    for key in content:
        if key not in hints:
            raise UsageError(f"{label} {key!r} is not a setting{did_you_mean(key, hints)}")
    values = {}
    for key, value in content.items():
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _section(typing.cast(type, hints[key]), value, where, key)
        else:
            values[key] = _checked(hints[key], value, f"{label} {key}")
    return cls(**values)


def _checked(hint: Any, value: Any, label: str) -> Any:
    """`value` as the annotated type, or a UsageError that says what would be accepted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        return None if value is None or value == "off" else _checked(inner[0], value, label)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{label} = {value!r}: one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise UsageError(f"{label} = {value!r}: a list of names")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(
            f"{label} = {value!r}: {'true or false' if hint is bool else hint.__name__} expected"
        )
    return value
