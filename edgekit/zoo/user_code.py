"""`file.py:function`: a model from the user's own code, or another thing that the code does.

The function of a model is called without arguments (with `num_classes` when that was asked for) and returns
an nn.Module. The module may carry `preprocessing` (a Preprocessing, or a dict of its fields), `class_names`,
and `untrained = True` when its weights are fresh.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import EdgekitError, UnknownModelError, UsageError, WeightsError, did_you_mean
from edgekit.files import escaped, user_path
from edgekit.zoo.checkpoint import fit_state, module_sha256, read_state
from edgekit.zoo.model import Model
from edgekit.zoo.weights import file_record, preprocessing_from, untrained_record, weights_path


def load_user_code(
    spec: str, weights: str, num_classes: int | None, resolution: int | None, trust: bool, seed: int
) -> Model:
    """The model a function of the user's returns.

    Raises:
        UnknownModelError: no such file or function.
        UsageError: the code raised, or returned no nn.Module.
        WeightsError: weights that this model cannot have.
    """
    path, function = _parted(spec, "returns the module")
    if weights in ("imagenet", "reference"):
        raise WeightsError(f"{spec}: there are no {weights} weights for your own code: auto, random or FILE")
    _require_file(path)
    with torch.random.fork_rng(devices=[]), _importable(path.parent):
        torch.manual_seed(seed)
        module = _call(_import(path), function, spec, num_classes)
        if weights == "random":
            _reinitialise(module)
    module = evaluating(module.float())
    if weights == "random" or (weights == "auto" and getattr(module, "untrained", False)):
        record = untrained_record(module, seed)
    elif weights == "auto":
        record = {
            "kind": "file",
            "source": f"as returned by {spec}",
            "sha256": module_sha256(module),
            "untrained": False,
        }
    else:
        path_of_weights, entry = weights_path(weights)
        state, where = read_state(path_of_weights, trust, set(module.state_dict()), entry=entry)
        fit_state(module, state, None, weights)
        record = file_record(path_of_weights, where)
    names = getattr(module, "class_names", None)
    preprocessing = preprocessing_from(getattr(module, "preprocessing", None), resolution, spec)
    side = preprocessing.resolution
    shape = (1, 3, side, side)
    name = escaped(f"{path.stem}.{function}")
    return Model(name, "file", module, preprocessing, tuple(names) if names else None, record, shape)


def call_function(spec: str, purpose: str, *arguments: Any) -> Any:
    """What a function of the user's own code returns for `arguments`.

    Args:
        spec: file.py:function. purpose: what it is for, to be said of one that is not there: "trains".

    Raises:
        UnknownModelError: no such file or function.
        UsageError: the code raised.
    """
    path, function = _parted(spec, purpose)
    _require_file(path)
    with _importable(path.parent):
        found = _find(_import(path), function, spec, f"one that {purpose}")
        try:
            return found(*arguments)
        except EdgekitError:
            raise
        except Exception as error:
            raise UsageError(f"{spec}: raised {_line(error)}: a function that {purpose}") from error


def _parted(spec: str, purpose: str) -> tuple[Path, str]:
    file, colon, function = spec.rpartition(":")
    if not colon or not function.isidentifier():
        raise UsageError(f"{spec}: which function {purpose}?: file.py:function")
    return user_path(file), function


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UnknownModelError(f"{path}: no such file: file.py:function")


def evaluating(module: nn.Module) -> nn.Module:
    """The module in eval mode; the mode of an exported program was fixed when it was exported."""
    try:
        return module.eval()
    except NotImplementedError:
        for part in module.modules():
            part.training = False
        return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules beside the user's file can be imported while it runs."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


class _EscapedFile(SourceFileLoader):
    """Code from a file whose name is not UTF-8, under a name that torch's native parts can hold."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), escaped(path))


def _import(path: Path) -> Any:
    # The name is unique to the path: two files of one name do not share a module.
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    name = f"edgekit_user_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}_{digest}"
    loader = None
    if escaped(str(path)) != str(path):
        loader = _EscapedFile(name, str(path))
    specification = importlib.util.spec_from_file_location(name, path, loader=loader)
    if specification is None or specification.loader is None:
        raise UsageError(f"{path}: cannot be imported: a Python file")
    loaded = importlib.util.module_from_spec(specification)
    sys.modules[name] = loaded
    try:
        specification.loader.exec_module(loaded)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path}: raised {_line(error)}: code that imports") from error
    return loaded


def _find(loaded: Any, function: str, spec: str, accepted: str) -> Any:
    found = getattr(loaded, function, None)
    if found is None or not callable(found):
        known = [k for k, v in vars(loaded).items() if callable(v) and not k.startswith("_")]
        near = did_you_mean(function, known) or f"; it has {', '.join(known[:5]) or 'none'}"
        raise UnknownModelError(f"{spec}: no function '{function}'{near}: {accepted}")
    return found


def _call(loaded: Any, function: str, spec: str, num_classes: int | None) -> nn.Module:
    found = _find(loaded, function, spec, "one that returns an nn.Module")
    if isinstance(found, nn.Module):
        module: Any = found
    else:
        settings = {} if num_classes is None else {"num_classes": num_classes}
        if settings and "num_classes" not in _parameters(found):
            raise UsageError(
                f"{spec}: takes no num_classes: a function with that parameter, or no number of classes"
            )
        try:
            module = found(**settings)
        except EdgekitError:
            raise
        except Exception as error:
            raise UsageError(f"{spec}: raised {_line(error)}: a function that needs no arguments") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{spec}: returned {type(module).__name__}: an nn.Module")
    return module


def _parameters(function: Any) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return (*parameters, "num_classes")
    return tuple(parameters)


def _reinitialise(module: nn.Module) -> None:
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__} ({text})" if text else type(error).__name__
