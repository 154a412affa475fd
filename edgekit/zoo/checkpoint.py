"""Checkpoint files: a state dict out of a file a user was handed, and into a module.

What a file is, its first bytes say, not its name. .safetensors holds tensors only. A .pt or .pth file is a
pickle: torch's weights_only reader takes tensors, plain containers and a few harmless types from it and runs
nothing; anything else needs the user's word (`trust`). Which of its dicts is meant: see `state_dict`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import pathlib
import pickle
import re
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.errors import WeightsError, did_you_mean
from edgekit.files import escaped
from edgekit.zoo.names import AUXILIARY, Architecture
from edgekit.zoo.state_dict import NESTS, Found, choose, entries, find_states

# Before 2017 the modules of a torchvision DenseNet had dots in their names; the published files still do.
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_LARGEST_HEADER = 100_000_000  # of safetensors, by their definition
# Types that training scripts leave beside the tensors; making one runs nothing.
_HARMLESS: tuple[Any, ...] = (
    *(argparse.Namespace, types.SimpleNamespace, dict, list, set, int, float),
    *(pathlib.PosixPath, pathlib.PurePosixPath, pathlib.WindowsPath, pathlib.PureWindowsPath),
    *(datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone),
    *(np.ndarray, np.dtype, *(type(np.dtype(c)) for c in "?bBhHiIlLqQefd")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
)


def file_sha256(path: Path) -> str:
    """Of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def module_sha256(module: nn.Module) -> str:
    """Of the names and values of a module's state, for weights that come from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_state(
    path: Path,
    trust: bool = False,
    known: set[str] | None = None,
    architecture: Architecture | None = None,
    entry: str = "",
) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict a file holds and the entry it was found under ('' at the top).

    Floating-point tensors come in float32.

    Args:
        known: the names of the module's own state; of several dicts the one that fits them is taken, and
            what stands before the names goes. entry: the one to take.
    Raises:
        WeightsError: no such file, not a checkpoint, or pickled objects without `trust`.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file: a .safetensors, .pt or .pth checkpoint")
    _refuse_foreign(path)
    held = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path, trust)
    found = [_today(one, architecture) for one in find_states(held)]
    if not found:
        what = type(held).__name__
        if isinstance(held, Mapping):
            what = f"entries {', '.join(map(str, list(held)[:4]))}"
        raise WeightsError(
            f"{path}: holds no state dict ({what}): tensors by name, at the top or under {', '.join(NESTS)}"
        )
    if known is None and not entry:
        return found[0].state, found[0].where
    chosen = choose(found, known or set(found[0].state), entry)
    if chosen is None:
        have = entries(found)
        near = did_you_mean(entry, have)
        raise WeightsError(
            f"{path}: no entry '{entry}'{near}: one of {', '.join(have) or 'none: leave it out'}"
        )
    return chosen.state, chosen.where


def _today(found: Found, architecture: Architecture | None) -> Found:
    """The same under the names that the architecture has today."""
    if architecture is None or not architecture.name.startswith("densenet"):
        return found
    if architecture.source != "torchvision":
        return found
    return Found(found.where, OrderedDict((_DENSENET.sub(r"\1\2", k), v) for k, v in found.state.items()))


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever it is called: the length of a JSON header, then {."""
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and length <= _LARGEST_HEADER:
        return True
    torchs = head.startswith((b"PK", b"\x80")) or tarfile.is_tarfile(path)
    return path.suffix == ".safetensors" and not torchs


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if escaped(str(path)) != str(path):  # the native reader opens names in UTF-8 alone
            return load(path.read_bytes())
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({_line(error)}): a complete .safetensors file"
        ) from error


def _read_torch(path: Path, trust: bool) -> Any:
    try:
        # An open file: torch would go by the name.
        with path.open("rb") as file, torch.serialization.safe_globals(list(_HARMLESS)):
            return torch.load(file, map_location="cpu", weights_only=not trust)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        if not trust and "legacy .tar" in str(error):
            raise WeightsError(
                f"{path}: in the tar format of torch before 0.1.10, which pickles objects: "
                "saved again by torch.save, or --trust if it is yours"
            ) from error
        if not trust and re.search(
            r"Unsupported (global|class|operand)|TorchScript|GLOBAL|REDUCE|Can only", str(error)
        ):
            raise WeightsError(
                f"{path}: holds pickled Python objects, which can run code when they are loaded: "
                "a file of tensors (safetensors, torch.save of a state_dict), or --trust if it is yours"
            ) from error
        raise WeightsError(
            f"{path}: cannot be read ({_line(error)}): a complete .pt or .pth checkpoint"
        ) from error
    except Exception as error:
        # A trusted pickle runs whatever code it names, so it can raise anything.
        raise WeightsError(f"{path}: cannot be read ({_line(error)}): a checkpoint of tensors") from error


def _refuse_foreign(path: Path) -> None:
    """Name what is often found where a checkpoint was expected."""
    with path.open("rb") as file:
        head = file.read(512)
    what = ""
    if head.startswith(b"version https://git-lfs"):
        what = "a pointer of Git LFS, not the file itself: git lfs pull fetches it"
    elif head.lstrip()[:14].lower().startswith((b"<!doctype", b"<html")):
        what = "a web page: the file behind its download link"
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        what = "compressed: the checkpoint that is in it"
    elif head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            what = f"an archive of {', '.join(names[:3]) or 'nothing'}: the checkpoint that is in it"
    if what:
        raise WeightsError(f"{path}: {what}")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if own := re.search(r"WeightsUnpickler error: (.*?)( Check the documentation|$)", text):
        text = own.group(1)  # what torch wraps into advice
    return text if len(text) <= 120 else text[:117] + "..."


def without_auxiliary(
    state: dict[str, torch.Tensor], architecture: Architecture | None
) -> dict[str, torch.Tensor]:
    """The state less the auxiliary classifiers that are left out of the module."""
    if architecture is None or architecture.source != "torchvision":
        return state
    dropped = AUXILIARY.get(architecture.name, ())
    if not dropped:
        return state
    kept: dict[str, torch.Tensor] = OrderedDict((k, v) for k, v in state.items() if not k.startswith(dropped))
    if hasattr(state, "_metadata"):
        kept._metadata = state._metadata  # type: ignore[attr-defined]
    return kept


def fit_state(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    architecture: Architecture | None,
    where: str = "weights",
) -> None:
    """Load `state` into `module`: every name there, every shape equal, every number finite.

    Raises:
        WeightsError: names the first few that are missing, unexpected, of another shape or not finite.
    """
    own = module.state_dict()
    found = [_today(Found("", state), architecture)]
    chosen = choose(found, set(own))
    state = without_auxiliary(state if chosen is None else chosen.state, architecture)
    name = architecture.name if architecture else type(module).__name__
    # Checkpoints older than the counter of batch norm lack it; only training reads it.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    faults = [
        f"{what} {_first(items)}"
        for what, items in (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
        if items
    ]
    if faults:
        raise WeightsError(f"{where}: does not fit {name}: {'; '.join(faults)}: a checkpoint of {name}")
    broken = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise WeightsError(f"{where}: not finite in {_first(broken)}: finite numbers")
    if not hasattr(state, "_metadata"):
        state._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)


def _first(items: list[str], count: int = 3) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more


def classifier_dims(build: Callable[[int], nn.Module]) -> dict[str, int]:
    """{state name: dimension} of everything whose size is the number of classes, found by building twice."""
    few, more = ({k: v.shape for k, v in build(n).state_dict().items()} for n in (7, 11))
    return {
        name: next(d for d, (a, b) in enumerate(zip(shape, more[name], strict=True)) if a != b)
        for name, shape in few.items()
        if shape != more[name]
    }
