"""Weights for a named model: reference, imagenet, random, a file, or the first of these that is at hand.

A choice that cannot be honoured is an error; only "auto" chooses, never fetches, and the record it leaves
says what it chose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.data.preprocessing import Preprocessing
from edgekit.errors import UsageError, WeightsError, did_you_mean
from edgekit.files import user_path
from edgekit.zoo import cache, libraries
from edgekit.zoo.checkpoint import classifier_dims, file_sha256, fit_state, module_sha256, read_state
from edgekit.zoo.names import Architecture

KINDS = ("auto", "reference", "imagenet", "random")
REFERENCE_DIR = Path(__file__).parent / "reference"
HARD = "embedded-hard"  # the set with checkpoints of its own


@dataclass(frozen=True)
class Loaded:
    """A module with its weights, how pictures get into it, and the record for the report."""

    module: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    record: dict[str, Any]


def load_weights(
    architecture: Architecture,
    choice: str,
    num_classes: int | None,
    resolution: int | None,
    trust: bool,
    seed: int,
    images: str = "embedded",
) -> Loaded:
    """Build the architecture with the chosen weights.

    images: the set whose reference checkpoint is meant.

    Raises:
        WeightsError: the choice is not there, cannot be fetched or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        # Whatever is drawn while building is either overwritten or the seeded random weights.
        torch.manual_seed(seed)
        if choice == "auto":
            choice = _at_hand(architecture, num_classes, images)
        if choice == "random":
            return _random(architecture, num_classes, resolution, seed)
        if choice == "reference":
            loaded = _reference(architecture, num_classes, resolution, images)
        elif choice == "imagenet":
            loaded = _imagenet(architecture, num_classes, resolution, trust)
        else:
            loaded = _file(architecture, choice, num_classes, resolution, trust)
    loaded.module.eval()
    return loaded


def weights_path(choice: str) -> tuple[Path, str]:
    """The file a `weights` argument names, and the entry of it after a #, "" for the one that fits.

    Raises: WeightsError that lists what it could have been.
    """
    path, entry = user_path(choice), ""
    if not path.is_file() and "#" in choice:
        file, _, entry = choice.rpartition("#")
        path = user_path(file)
    if not path.is_file():
        raise WeightsError(
            f"weights: '{choice}' is no file{did_you_mean(choice, KINDS)}: {', '.join(KINDS)} or a checkpoint"
        )
    return path, entry


def reference_folder(images: str = "embedded") -> Path:
    """Where the checkpoints lie that were trained on a set."""
    return REFERENCE_DIR / "hard" if images == HARD else REFERENCE_DIR


def reference_rows(images: str = "embedded") -> dict[str, dict[str, Any]]:
    """index.json of the checkpoints that ship with edgekit; empty where none do."""
    path = reference_folder(images) / "index.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error}): the index of the reference checkpoints") from error


def _reference_row(architecture: Architecture, images: str) -> dict[str, Any] | None:
    row = reference_rows(images).get(architecture.name)
    if row is None or row["source"] != architecture.source:
        return None
    return row


def _at_hand(architecture: Architecture, num_classes: int | None, images: str) -> str:
    row = _reference_row(architecture, images)
    if row and num_classes in (None, row["num_classes"]):
        return "reference"
    published = libraries.published(architecture)
    if published and num_classes in (None, 1000) and _cached(published):
        return "imagenet"
    return "random"


def _cached(published: libraries.Published) -> Path | None:
    return cache.cached(published.file_name, published.hub_id, published.hub_files)


def _random(architecture: Architecture, num_classes: int | None, resolution: int | None, seed: int) -> Loaded:
    module = libraries.build(architecture, num_classes, resolution)
    preprocessing = libraries.at_resolution(libraries.default_preprocessing(architecture), resolution)
    _warm_batch_norm(module, preprocessing.resolution)
    return Loaded(module, preprocessing, None, untrained_record(module, seed))


def _warm_batch_norm(module: nn.Module, resolution: int) -> None:
    """Give random weights the statistics of smooth random images.

    Fresh statistics (mean 0, variance 1) let a deep network's values fade to nothing, and then neither its
    quantization nor its agreement means anything.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # averages over everything seen
    coarse = torch.randn(8, 3, 12, 12)
    images = nn.functional.interpolate(coarse, resolution, mode="bicubic", align_corners=False)
    with torch.no_grad():
        for batch in images.split(4):
            module.train()(batch)
    module.eval()


def untrained_record(module: nn.Module, seed: int) -> dict[str, Any]:
    """The record of weights nobody trained, in words that cannot be mistaken."""
    return {
        "kind": "random",
        "source": f"UNTRAINED: random initialisation, seed {seed}",
        "sha256": module_sha256(module),
        "untrained": True,
    }


def _reference(
    architecture: Architecture, num_classes: int | None, resolution: int | None, images: str
) -> Loaded:
    row = _reference_row(architecture, images)
    if row is None:
        have = ", ".join(sorted(reference_rows(images))) or "none"
        raise WeightsError(
            f"{architecture.name}: no reference checkpoint ships for it (there are: {have}): "
            "imagenet, random or FILE"
        )
    if num_classes not in (None, row["num_classes"]):
        raise WeightsError(
            f"{architecture.name}: the reference checkpoint has {row['num_classes']} classes, "
            f"{num_classes} were asked for: leave the number out, or use random or FILE"
        )
    path = reference_folder(images) / f"{architecture.name}.safetensors"
    state, _ = read_state(path)
    digest = file_sha256(path)
    if digest != row["sha256"]:
        raise WeightsError(f"{path}: its sha256 is not the one in index.json: the file as it was shipped")
    module = libraries.build(architecture, row["num_classes"], resolution)
    fit_state(module, state, architecture, str(path))
    side = row["resolution"]
    preprocessing = Preprocessing(side, side, row["interpolation"], tuple(row["mean"]), tuple(row["std"]))
    record = {
        "kind": "reference",
        "source": f"edgekit reference checkpoint ({row['trained_with']})",
        "sha256": digest,
        "untrained": False,
        "accuracy": row["accuracy"],
    }
    return Loaded(
        module, libraries.at_resolution(preprocessing, resolution), tuple(row["class_names"]), record
    )


def _imagenet(
    architecture: Architecture, num_classes: int | None, resolution: int | None, trust: bool
) -> Loaded:
    name = architecture.name
    published = libraries.published(architecture)
    if published is None:
        raise WeightsError(
            f"{name}: {architecture.source} publishes no weights for it: reference, random or FILE"
        )
    if num_classes not in (None, 1000) and architecture.source == "torchvision":
        raise WeightsError(
            f"{name}: ImageNet weights have 1000 classes, {num_classes} were asked for: "
            "leave the number out, or use random or FILE"
        )
    path = _cached(published)
    if path is None:
        try:
            path = cache.fetch(published.url, published.file_name, published.hub_id, published.hub_files)
        except WeightsError as error:
            wanted = cache.expected_path(published.file_name, published.hub_id, published.hub_files)
            raise WeightsError(
                f"{name}: ImageNet weights are not in the cache ({wanted}) and cannot be fetched ({error}): "
                "put the file there, or use --weights reference, random or FILE"
            ) from error
    state, _ = read_state(path, trust)
    try:
        module, names = libraries.load_published(architecture, state, resolution)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{path}: does not fit {name} ({reason}): the file {architecture.source} fetches"
        ) from error
    if num_classes not in (None, classes_of(module)):
        raise WeightsError(
            f"{name}: ImageNet weights have {classes_of(module)} classes, {num_classes} were asked for: "
            "leave the number out, or use random or FILE"
        )
    record = {
        "kind": "imagenet",
        "source": f"{architecture.source} {name}, {path.name}",
        "sha256": file_sha256(path),
        "untrained": False,
    }
    preprocessing = libraries.at_resolution(libraries.default_preprocessing(architecture), resolution)
    return Loaded(module, preprocessing, names, record)


def classes_of(module: nn.Module) -> int | None:
    """timm's modules say how many classes they have; torchvision's do not."""
    number = getattr(module, "num_classes", None)
    return number if isinstance(number, int) else None


def _file(
    architecture: Architecture, choice: str, num_classes: int | None, resolution: int | None, trust: bool
) -> Loaded:
    path, entry = weights_path(choice)
    empty = partial(libraries.build_empty, architecture)
    dims = classifier_dims(empty)
    state, where = read_state(path, trust, set(empty(7).state_dict()), architecture, entry)
    found = {name: state[name].shape[d] for name, d in dims.items() if name in state and state[name].ndim > d}
    # A model without a classifier has no dims; a file without one is reported as missing names below.
    stored = next(iter(found.values()), None)
    if num_classes is not None and stored not in (None, num_classes):
        raise WeightsError(
            f"{path}: has {stored} classes ({next(iter(found))}), {num_classes} were asked for: "
            "leave the number out, or give a checkpoint with that many"
        )
    if stored == 0:
        raise WeightsError(f"{path}: has no classes ({next(iter(found))}): at least one")
    module = libraries.build(architecture, stored if stored is not None else num_classes, resolution)
    fit_state(module, state, architecture, str(path))
    preprocessing = libraries.at_resolution(libraries.default_preprocessing(architecture), resolution)
    return Loaded(module, preprocessing, None, file_record(path, where))


def file_record(path: Path, where: str) -> dict[str, Any]:
    """The record of weights from a file a user named."""
    return {
        "kind": "file",
        "source": f"{path} [{where}]" if where else str(path),
        "sha256": file_sha256(path),
        "untrained": False,
    }


def preprocessing_from(given: Any, side: int | None, where: str) -> Preprocessing:
    """A Preprocessing from one, from a mapping of some of its fields, or ImageNet's when None.

    Args:
        given: what a user's module carries.
        side: the resolution, when the caller knows it; None takes what is given, else 224.
        where: for messages.
    """
    if isinstance(given, Preprocessing):
        return libraries.at_resolution(given, side)
    fields = dict(given or {})
    known = ("resolution", "resize", "interpolation", "mean", "std", "orientation")
    wrong = [k for k in fields if k not in known]
    if wrong:
        raise UsageError(
            f"{where}: preprocessing has no '{wrong[0]}'{did_you_mean(str(wrong[0]), known)}: {known}"
        )
    try:
        own = int(fields.get("resolution", side or 224))
        base = Preprocessing(
            own,
            int(fields.get("resize", round(own * 256 / 224))),
            fields.get("interpolation", "bilinear"),
            tuple(fields.get("mean", libraries.IMAGENET_MEAN)),
            tuple(fields.get("std", libraries.IMAGENET_STD)),
            fields.get("orientation", "ignored"),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: preprocessing {fields}: whole numbers for sizes, three numbers for mean and std"
        ) from error
    return libraries.at_resolution(base, side)
