"""torchvision and timm behind one face: build a module, its own preprocessing, its published weight file.

Everything that knows a library's peculiarities stands here; `weights.py` decides what is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from edgekit.data.preprocessing import Preprocessing
from edgekit.errors import UsageError
from edgekit.zoo.names import AUXILIARY, MOBILENET_V1_WIDTHS, Architecture

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """Where a library's default ImageNet weights are: at a URL, in a hub repository, or both."""

    url: str = ""
    hub_id: str = ""
    hub_files: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return PurePosixPath(urlparse(self.url).path).name


def build(
    architecture: Architecture,
    num_classes: int | None = None,
    resolution: int | None = None,
    **settings: Any,
) -> nn.Module:
    """The module with fresh weights, in eval mode, without auxiliary classifiers.

    Raises:
        UsageError: the architecture cannot be built at that resolution.
    """
    if num_classes is not None:
        settings["num_classes"] = num_classes
    own = default_preprocessing(architecture).resolution
    make = _torchvision if architecture.source == "torchvision" else _timm
    if resolution is None or resolution == own:
        return make(architecture.name, None, settings).eval()
    try:
        return make(architecture.name, resolution, settings).eval()
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"{architecture.name}: cannot be built for {resolution} px ({reason}): it was made for {own}"
        ) from error


def build_empty(architecture: Architecture, num_classes: int | None = None, **settings: Any) -> nn.Module:
    """The module on the meta device: shapes without memory.

    A constructor that reads a tensor's value (regnet's widths) cannot run there: it gives a real module.
    """
    try:
        with torch.device("meta"):
            return build(architecture, num_classes, **settings)
    except (NotImplementedError, RuntimeError):
        return build(architecture, num_classes, **settings)


def _torchvision(name: str, resolution: int | None, settings: dict[str, Any]) -> nn.Module:
    from torchvision import models

    if name in AUXILIARY:
        # init_weights: torch's own initialisation, not a truncated normal that takes seconds.
        settings = {"aux_logits": False, "init_weights": False} | settings
    if name.startswith("vit_"):
        # The size is part of the module; the default weights of some are for another than the builder's.
        settings["image_size"] = (
            resolution or default_preprocessing(Architecture("torchvision", name)).resolution
        )
    if resolution is not None and name.startswith("maxvit"):
        settings["input_size"] = (resolution, resolution)
    return models.get_model(name, weights=None, **settings)


def _timm(name: str, resolution: int | None, settings: dict[str, Any]) -> nn.Module:
    import timm

    if name in MOBILENET_V1_WIDTHS:
        from timm.models.efficientnet import _gen_mobilenet_v1

        return _gen_mobilenet_v1("mobilenetv1_100", MOBILENET_V1_WIDTHS[name], **settings)
    if resolution is not None and _timm_config(name).fixed_input_size:
        settings["img_size"] = resolution
    return timm.create_model(name, **settings)


def _timm_config(name: str) -> Any:
    """timm's PretrainedCfg of an architecture, with or without a tag; an empty one where it has none."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    known = "mobilenetv1_100" if name in MOBILENET_V1_WIDTHS else name
    return get_pretrained_cfg(known) or PretrainedCfg()


def default_preprocessing(architecture: Architecture) -> Preprocessing:
    """What the library's default weights were evaluated with."""
    if architecture.source == "torchvision":
        from torchvision import models

        transform = models.get_model_weights(architecture.name).DEFAULT.transforms()
        side, shorter = transform.crop_size[0], transform.resize_size[0]
        how = transform.interpolation.value
        return Preprocessing(side, max(side, shorter), how, tuple(transform.mean), tuple(transform.std))
    config = _timm_config(architecture.name)
    side = config.input_size[-1]
    return Preprocessing(
        side,
        max(side, math.floor(side / (config.crop_pct or 1.0))),
        "bilinear" if config.interpolation == "bilinear" else "bicubic",
        tuple(config.mean),
        tuple(config.std),
    )


def at_resolution(preprocessing: Preprocessing, resolution: int | None) -> Preprocessing:
    """The same with another side of the input; the margin that is cropped away keeps its share."""
    if resolution is None or resolution == preprocessing.resolution:
        return preprocessing
    resize = round(preprocessing.resize * resolution / preprocessing.resolution)
    return replace(preprocessing, resolution=resolution, resize=max(resize, resolution))


def published(architecture: Architecture) -> Published | None:
    """The library's default ImageNet weights, or None where it publishes none."""
    if architecture.source == "torchvision":
        from torchvision import models

        return Published(url=models.get_model_weights(architecture.name).DEFAULT.url)
    config = _timm_config(architecture.name)
    if architecture.name in MOBILENET_V1_WIDTHS or not (config.hf_hub_id or config.url):
        return None
    files = (
        (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    )
    return Published(config.url or "", config.hf_hub_id or "", files if config.hf_hub_id else ())


def load_published(
    architecture: Architecture, state: dict[str, Any], resolution: int | None
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The module with its library's own ImageNet weights, and the class names they answer with.

    `state` is what the published file holds; timm's per-model key filters run on it.
    """
    from torchvision import models

    from edgekit.zoo.checkpoint import fit_state

    if architecture.source == "torchvision":
        # These two were trained elsewhere, on inputs in -1..1: the flag converts.
        settings = {"transform_input": True} if architecture.name in AUXILIARY else {}
        module = build(architecture, resolution=resolution, **settings)
        fit_state(module, state, architecture)
        return module, tuple(models.get_model_weights(architecture.name).DEFAULT.meta["categories"])
    module = build(
        architecture, resolution=resolution, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
    )
    config: Any = module.pretrained_cfg
    config.pop("state_dict", None)
    if config.get("num_classes") != 1000:
        return module, None
    return module, tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])
