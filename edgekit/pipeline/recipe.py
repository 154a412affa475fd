"""What to build and what to demand of it: TOML plus flags -> frozen dataclasses, one per stage.

Sections follow stage order; an absent section means its defaults.
Every setting is checked by name and type, and an unknown one is refused with the nearest known name.
Knows nothing of torch, so that reading a recipe costs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit.errors import UsageError, did_you_mean
from edgekit.files import user_path
from edgekit.pipeline import step_settings
from edgekit.pipeline.step_settings import Lite, Mixed, Prune, Qat, Train
from edgekit.targets import TARGETS
from edgekit.targets.promises import OFF, THRESHOLDS

Off = Literal["off"]


@dataclass(frozen=True)
class Data:
    """source: "embedded", "embedded-hard" or "imagefolder:PATH"; counts are images.

    exif: "apply" turns photos as their EXIF orientation says, "ignore" reads them as ImageFolder does; None
    leaves it to the model's preprocessing, which ignores it unless it says otherwise.
    class_names: one name an output of the model, or a file that holds them; by default the model's own, else
    the folders' where there are as many as outputs.
    """

    source: str = "embedded"
    calibration: int = 128
    evaluation: int = 2000
    exif: Literal["apply", "ignore"] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Quantize:
    """Post-training quantization; see edgekit.quantize.QuantizeSettings for what each part does.

    float_modules, dynamic_modules: paths of modules that compute in float, or with int8 weights over float
        activations where there are kernels for it.
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
    float_modules: tuple[str, ...] = ()
    dynamic_modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """names: artifacts to build; io: dtype of the model's input and output, None for the target's own.

    dynamic_batch: leave the batch open in formats that can (ONNX, OpenVINO); TFLite files stay at 1.
    min_runtime: the oldest TensorFlow Lite that has to run .tflite files ("2.9"): before 2.10 linear layers
        are written as 1x1 convolutions.
    """

    names: tuple[str, ...] = ("tflite-int8",)
    io: Literal["int8", "uint8", "float32"] | None = None
    dynamic_batch: bool = False
    min_runtime: str | None = None


@dataclass(frozen=True)
class Task:
    """What the outputs mean; "auto" decides by their shapes and by what labels and class names say."""

    name: Literal["auto", "tensors", "classification", "segmentation"] = "auto"


@dataclass(frozen=True)
class Limits:
    """Thresholds asked of gates, as `edgekit.targets.Promises` names them.

    None, an absent key, keeps what the target promises; "off" makes a remark of the gate, which is shown and
    not judged.
    """

    max_lsb: int | Off | None = None
    min_float_sqnr_db: float | Off | None = None
    max_top1_drop: float | Off | None = None
    proven_drop: bool | None = None
    min_sqnr_db: float | Off | None = None
    min_equal: float | Off | None = None
    min_agreement: float | Off | None = None
    min_pairwise_agreement: float | Off | None = None
    max_partitions: int | Off | None = None
    max_undelegated: int | Off | None = None
    max_transposes: int | Off | None = None
    min_int8_share: float | Off | None = None
    min_int8_macs_share: float | Off | None = None
    max_size_bytes: int | Off | None = None
    max_latency_ratio: float | Off | None = None
    min_images: int | Off | None = None

    def asked(self) -> dict[str, float | str]:
        """The thresholds that are given."""
        given = {name: getattr(self, name) for name in THRESHOLDS}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Verify(Limits):
    """Thresholds for every target, and in tables of their own ([verify.openvino-int8]) for single ones.

    tensorflow: run .tflite files under TensorFlow's own interpreter too (extra `tensorflow`).
    targets: target -> its own thresholds, which win.
    """

    tensorflow: bool = False
    targets: dict[str, Limits] = field(default_factory=dict)

    def asked_of(self, target: str) -> dict[str, float | str]:
        """The thresholds that are given for one target."""
        return self.asked() | self.targets.get(target, Limits()).asked()


@dataclass(frozen=True)
class Device:
    """Where latency is measured: names is ("host",), this machine.

    profile "publish": at least 5 fresh processes and 1,000 samples.
    """

    names: tuple[str, ...] = ("host",)
    profile: Literal["quick", "publish", "off"] = "quick"
    threads: int = 1


@dataclass(frozen=True)
class Machine:
    """What a build may take of this machine.

    jobs: cores to use; default those this process may run on, or what OMP_NUM_THREADS says.
    cache_limit: what the cache may hold: "2GB", "5%" of the disk, "off"; "auto" is $EDGEKIT_CACHE_LIMIT, or
        10 GB or a tenth of the disk.
    """

    jobs: int | None = None
    cache_limit: str = "auto"


@dataclass(frozen=True)
class Recipe:
    """model: a name, timm:NAME, tv:NAME, FILE.py:FUNCTION or an exported .pt2; weights: see edgekit.zoo.

    original: the model that `model` was made from, in the same spellings, with weights of its own; every
        proof refers to its answers.
    lite, prune, train: what is made of the model before it is quantized; None leaves it as it is.
    qat: how what calibration made is trained; None leaves it as it is.
    mixed: precisions chosen by node, to a demand; None is int8 but for the modules named in [quantize].
    """

    model: str
    weights: str = "auto"
    original: str | None = None
    original_weights: str = "auto"
    resolution: int | None = None
    seed: int = 0
    data: Data = field(default_factory=Data)
    lite: Lite | None = None
    prune: Prune | None = None
    train: Train | None = None
    quantize: Quantize = field(default_factory=Quantize)
    qat: Qat | None = None
    mixed: Mixed | None = None
    target: Target = field(default_factory=Target)
    task: Task = field(default_factory=Task)
    verify: Verify = field(default_factory=Verify)
    device: Device = field(default_factory=Device)
    machine: Machine = field(default_factory=Machine)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back, tuples as lists."""
        content = _plain(dataclasses.asdict(self))
        content["verify"] |= content["verify"].pop("targets")
        return content


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
    flags = without_none(overrides or {})
    merged = _merge(content, flags)
    for section, names in step_settings.EITHER.items():  # one at a time: the flag's
        given = flags.get(section, {}).keys()
        if given & {*names, "dead"}:
            for name in names - given:
                merged[section].pop(name, None)
    tables = [table for table in merged.get("verify", {}).values() if isinstance(table, dict)]
    for name in flags.get("verify", {}).keys() & THRESHOLDS:  # a flag means every target
        for table in tables:
            table.pop(name, None)
    return from_dict(merged, str(path))


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
    recipe = _section(Recipe, _with_names(content), where, "")
    if not recipe.target.names:
        raise UsageError(f'{where}: [target] names is empty: name at least one, like "tflite-int8"')
    for name, count in (("calibration", recipe.data.calibration), ("evaluation", recipe.data.evaluation)):
        if count < 1:
            raise UsageError(f"{where}: [data] {name} = {count}: at least 1 image")
    if recipe.device.threads < 1:
        raise UsageError(f"{where}: [device] threads = {recipe.device.threads}: at least 1")
    if recipe.device.names != ("host",):
        raise UsageError(
            f"{where}: [device] names = {list(recipe.device.names)}: a build measures on this machine, "
            '["host"]; `edgekit bench OUT --device NAME` measures what it built on a board'
        )
    for step in (recipe.lite, recipe.prune, recipe.train, recipe.qat, recipe.mixed):
        if step is not None:
            step_settings.check(step, where)
    if recipe.machine.jobs is not None and recipe.machine.jobs < 1:
        raise UsageError(f"{where}: [machine] jobs = {recipe.machine.jobs}: at least 1")
    return recipe


def _with_names(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the names that a file of class names holds in the place of its path."""
    data = content.get("data")
    if not isinstance(data, dict):
        return content
    file = data.get("class_names")
    if not isinstance(file, str) or file == "off":
        return content
    return content | {"data": data | {"class_names": read_class_names(file)}}


def read_class_names(path: str | os.PathLike[str]) -> list[str]:
    """The names in a file: one a line, or JSON: a list, {"0": name} or {name: 0}.

    Raises: UsageError for a file that cannot be read, an empty line, or indices that are not 0, 1, 2, ...
    """
    try:
        text = user_path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot read the class names ({error.strerror}): one a line") from error
    except ValueError as error:
        raise UsageError(f"{path}: class names that are not UTF-8: one a line, in UTF-8") from error
    if text.lstrip().startswith(("[", "{")):
        names = _names_of_json(text)
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f'{path}: no class names: one a line, a JSON list, or {{"0": name, "1": name}}')
    return names


def _names_of_json(text: str) -> list[Any]:
    """The names in JSON, in the order of their indices; empty when it is something else."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            return found
        by_index = {int(k): v for k, v in found.items()} if all(map(str.isdigit, found)) else None
        if by_index is None:
            by_index = {v: k for k, v in found.items()}
    except (ValueError, TypeError):
        return []
    return [by_index[i] for i in range(len(found))] if set(by_index) == set(range(len(found))) else []


def without_none(content: dict[str, Any]) -> dict[str, Any]:
    """Nested plain data less the settings nobody gave; a section that was given empty stays."""
    kept = {k: without_none(v) if isinstance(v, dict) else v for k, v in content.items() if v is not None}
    return {k: v for k, v in kept.items() if v != {} or content[k] == {}}


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
    values: dict[str, Any] = {}
    if cls is Verify:
        del hints["targets"]
        own = {key: value for key, value in content.items() if isinstance(value, dict)}
        content = {key: value for key, value in content.items() if key not in own}
        values["targets"] = {key: _limits(key, table, where) for key, table in own.items()}
    for key in content:
        if key not in hints:
            raise UsageError(f"{label} {key!r} is not a setting{did_you_mean(key, hints)}")
    for key, value in content.items():
        section = _section_type(hints[key])
        if section is not None and not (value is None and section is not hints[key]):
            values[key] = _section(section, value, where, key)
        else:
            values[key] = _checked(hints[key], value, f"{label} {key}")
    try:
        return cls(**values)
    except UsageError as error:  # what checks itself when it is made
        raise UsageError(f"{label} {str(error).removeprefix(f'{name}: ')}") from error


def _section_type(hint: Any) -> type | None:
    """The dataclass that a setting is a section of, also where the section may be absent."""
    members = [hint, *typing.get_args(hint)]
    return next((member for member in members if dataclasses.is_dataclass(member)), None)  # type: ignore[return-value]


def _limits(target: str, content: Any, where: str) -> Limits:
    if target not in TARGETS:
        raise UsageError(f"{where}: [verify.{target}] is not a target{did_you_mean(target, TARGETS)}")
    return typing.cast(Limits, _section(Limits, content, where, f"verify.{target}"))


_PLURALS = {str: "names", int: "whole numbers", float: "numbers"}


def _row(kind: Any, value: Any, label: str) -> Any:
    """A list as a named tuple; what is left out at its end has a default."""
    hints, least = typing.get_type_hints(kind), len(kind._fields) - len(kind._field_defaults)
    if not isinstance(value, list | tuple) or not least <= len(value) <= len(hints):
        raise UsageError(f"{label} = {value!r}: [{', '.join(kind._fields)}]")
    return kind(*(_checked(hint, one, label) for hint, one in zip(hints.values(), value, strict=False)))


def _checked(hint: Any, value: Any, label: str) -> Any:
    """`value` as the annotated type, or a UsageError that says what would be accepted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        if value is None or value == OFF:
            return OFF if value is not None and Off in inner else None
        return _checked(inner[0], value, label)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{label} = {value!r}: one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or (args[0] is str and not all(type(v) is str for v in value)):
            raise UsageError(f"{label} = {value!r}: a list of {_PLURALS.get(args[0], 'rows')}")
        return tuple(_checked(args[0], one, label) for one in value)
    if isinstance(hint, type) and issubclass(hint, tuple):
        return _row(hint, value, label)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(
            f"{label} = {value!r}: {'true or false' if hint is bool else hint.__name__} expected"
        )
    return value
