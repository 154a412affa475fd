"""The checkpoint of a training in progress: everything that its next step depends on, in one file.

Written beside its place and renamed into it, so it is whole or not there at all. It names the training it
belongs to: settings, data, the weights it began with. Random numbers are no part of it: those of a step
follow from the seed and the step's number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import TrainError
from edgekit.files import storage_errors

_FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`."""
    partial = path.with_name(f".{path.name}.partial")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state at `path`, None where there is none.

    Raises: TrainError when the file is none of ours, or of a training with another identity.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found, version = state["identity"], state["format"]
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise TrainError(f"{path}: no checkpoint of a training ({reason}): another path") from error
    if version != _FORMAT:
        raise TrainError(f"{path}: a checkpoint of format {version}: format {_FORMAT}, or remove it")
    differing = [key for key in sorted({*identity, *found}) if identity.get(key) != found.get(key)]
    if differing:
        raise TrainError(
            f"{path}: the checkpoint of another training, whose {', '.join(differing)} differ: "
            "the same again, or another path"
        )
    return dict(state)


def weights_sha256(*modules: nn.Module) -> str:
    """Hash of parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in tensors_of(module).items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, those that a state_dict leaves out too."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def restore(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write saved values into the module's own tensors."""
    for name, tensor in tensors_of(module).items():
        if not torch.equal(tensor, tensors[name].to(tensor.device)):  # what never moves may not be writable
            tensor.copy_(tensors[name])


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of `tensors_of`, in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in tensors_of(module).items()}
