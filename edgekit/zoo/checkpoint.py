"""Checkpoint files: a state dict out of a file a user was handed, and into a module.

.safetensors holds tensors only. A .pt or .pth file is a pickle: torch's weights_only reader takes tensors and
plain containers from it and runs nothing; anything else needs the user's word (`trust`).
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import nn

from edgekit.errors import WeightsError
from edgekit.zoo.names import AUXILIARY, Architecture

# The average of the weights is what its trainer evaluated, so it comes first.
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.", "model.")
# Before 2017 the modules of a torchvision DenseNet had dots in their names; the published files still do.
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


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


def read_state(path: Path, trust: bool = False) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict a file holds and the entry it was nested under ('' at the top).

    Floating-point tensors come in float32.

    Raises:
        WeightsError: no such file, not a checkpoint, or pickled objects without `trust`.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file: a .safetensors, .pt or .pth checkpoint")
    held: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, trust)
    if isinstance(held, nn.Module):
        held = held.state_dict()
    where = ""
    while isinstance(held, Mapping) and not _is_state(held):
        nest = next((n for n in NESTS if isinstance(held.get(n), (Mapping, nn.Module))), None)
        if nest is None:
            break
        held, where = held[nest], nest
        if isinstance(held, nn.Module):
            held = held.state_dict()
    if not isinstance(held, Mapping) or not _is_state(held):
        found = (
            f"entries {', '.join(map(str, list(held)[:4]))}"
            if isinstance(held, Mapping)
            else type(held).__name__
        )
        raise WeightsError(
            f"{path}: holds no state dict ({found}): tensors by name, at the top or under {', '.join(NESTS)}"
        )
    state: dict[str, torch.Tensor] = OrderedDict()
    for name, tensor in held.items():
        if isinstance(tensor, torch.Tensor):
            state[name] = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    if hasattr(held, "_metadata"):
        state._metadata = held._metadata  # type: ignore[attr-defined]
    return state, where


def _is_state(held: Mapping[Any, Any]) -> bool:
    return any(isinstance(v, torch.Tensor) and v.ndim > 1 for v in held.values())


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({_line(error)}): a complete .safetensors file"
        ) from error


def _read_torch(path: Path, trust: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        BadZipFile,
    ) as error:
        if not trust and re.search(
            r"Unsupported (global|class|operand)|TorchScript|GLOBAL|REDUCE", str(error)
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


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def unwrap(
    state: dict[str, torch.Tensor], architecture: Architecture | None, known: set[str]
) -> dict[str, torch.Tensor]:
    """The state under a module's own names: no wrapper prefixes, auxiliary classifiers or old spellings."""
    metadata = getattr(state, "_metadata", None)
    state = OrderedDict((k, v) for k, v in state.items() if k != "n_averaged")
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if state and not (known & set(state)) and all(k.startswith(prefix) for k in state):
                state = OrderedDict((k.removeprefix(prefix), v) for k, v in state.items())
                metadata = None
    if architecture is not None and architecture.source == "torchvision":
        dropped = AUXILIARY.get(architecture.name, ())
        state = OrderedDict((k, v) for k, v in state.items() if not k.startswith(dropped))
        if architecture.name.startswith("densenet"):
            state = OrderedDict((_DENSENET.sub(r"\1\2", k), v) for k, v in state.items())
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined]
    return state


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
    state = unwrap(state, architecture, set(own))
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
