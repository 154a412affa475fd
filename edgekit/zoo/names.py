"""Names: what people write -> the library that has the model and the library's own spelling.

Spellings are compared without case, underscores, hyphens, spaces and dots, so mobilenetv3-large is
mobilenet_v3_large. A name that both libraries have is torchvision's; `timm:` and `tv:` choose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from edgekit.errors import UnknownModelError, did_you_mean

# Classifiers used in training only, by the prefix of their parameters.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
PREFIXES = {"tv": "torchvision", "torchvision": "torchvision", "timm": "timm"}

# Common names that no library has under that spelling.
ALIASES = {
    "coatnet_nano": "timm:coatnet_nano_rw_224",
    "convnext": "tv:convnext_tiny",
    "deit_base": "timm:deit_base_patch16_224",
    "deit_small": "timm:deit_small_patch16_224",
    "deit_tiny": "timm:deit_tiny_patch16_224",
    "dinov2_small": "timm:vit_small_patch14_dinov2",
    "efficientnet_edgetpu_m": "timm:efficientnet_em",
    "efficientnet_edgetpu_s": "timm:efficientnet_es",
    "efficientnet_v2_b0": "timm:tf_efficientnetv2_b0",
    "efficientnet_v2_b1": "timm:tf_efficientnetv2_b1",
    "efficientnet_v2_b2": "timm:tf_efficientnetv2_b2",
    "efficientnet_v2_b3": "timm:tf_efficientnetv2_b3",
    "ghostnet": "timm:ghostnet_100",
    "inception_v1": "tv:googlenet",
    "mnasnet": "tv:mnasnet1_0",
    "mobilenet": "timm:mobilenetv1_100",
    "mobilenet_v1": "timm:mobilenetv1_100",
    "mobilenet_v1_0.25": "timm:mobilenetv1_025",
    "mobilenet_v1_0.5": "timm:mobilenetv1_050",
    "mobilenet_v1_0.75": "timm:mobilenetv1_075",
    "mobilenet_v2_0.5": "timm:mobilenetv2_050",
    "mobilenet_v2_1.4": "timm:mobilenetv2_140",
    "mobilenet_v3": "tv:mobilenet_v3_large",
    "mobilenet_v3_large_minimalistic": "timm:tf_mobilenetv3_large_minimal_100",
    "mobilenet_v3_small_minimalistic": "timm:tf_mobilenetv3_small_minimal_100",
    "mobilenet_v4_medium": "timm:mobilenetv4_conv_medium",
    "mobilenet_v4_small": "timm:mobilenetv4_conv_small",
    "nasnet": "timm:nasnetalarge",
    "resnext101": "tv:resnext101_32x8d",
    "resnext50": "tv:resnext50_32x4d",
    "shufflenet_v2": "tv:shufflenet_v2_x1_0",
    "squeezenet": "tv:squeezenet1_1",
    "swin_base": "tv:swin_b",
    "swin_small": "tv:swin_s",
    "swin_tiny": "tv:swin_t",
    "vit_base": "tv:vit_b_16",
    "vit_large": "tv:vit_l_16",
    "wide_resnet101": "tv:wide_resnet101_2",
    "wide_resnet50": "tv:wide_resnet50_2",
    "xception": "timm:legacy_xception",
}

# Width multipliers of MobileNet V1 that timm can build but has not registered.
MOBILENET_V1_WIDTHS = {"mobilenetv1_075": 0.75, "mobilenetv1_050": 0.5, "mobilenetv1_025": 0.25}


@dataclass(frozen=True)
class Architecture:
    """A model of a library. `name` may carry timm's weight tag: efficientnet_b0.ra_in1k."""

    source: str
    name: str


@cache
def torchvision_names() -> tuple[str, ...]:
    """The classification models of torchvision."""
    from torchvision import models

    return tuple(models.list_models(module=models))


@cache
def timm_names() -> tuple[str, ...]:
    """timm's architectures, without weight tags, and the widths added here."""
    import timm

    return (*timm.list_models(), *MOBILENET_V1_WIDTHS)


def normalise(name: str) -> str:
    """The spelling names are compared in."""
    return "".join(c for c in name.lower() if c not in "_-. ")


def _match(name: str, known: Iterable[str]) -> list[str]:
    """The exact name, or every name that differs in spelling only."""
    known = tuple(known)
    if name in known:
        return [name]
    wanted = normalise(name)
    return [k for k in known if normalise(k) == wanted]


def find_architecture(spec: str) -> Architecture:
    """The library and canonical name behind a spec.

    Raises:
        UnknownModelError: no such name, with the nearest of both libraries; or several in that spelling.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix not in PREFIXES:
        raise UnknownModelError(f"{spec}: no library '{prefix}': tv:NAME, timm:NAME or file.py:function")
    name = (rest if colon else spec).strip()
    source = PREFIXES.get(prefix) if colon else None
    if not name:
        raise UnknownModelError(f"'{spec}': no model named: `edgekit models` lists them")
    if source is None:
        alias = _match(name, ALIASES)
        if alias and not _match(name, torchvision_names()):
            return find_architecture(ALIASES[alias[0]])
    for library, names in (("torchvision", torchvision_names), ("timm", timm_names)):
        if source in (None, library):
            found = _match(name, names())
            if not found and library == "timm":
                found = _tagged(name)
            if len(found) > 1:
                raise UnknownModelError(f"{spec}: the spelling fits several models: {' or '.join(found)}")
            if found:
                return Architecture(library, found[0])
    raise UnknownModelError(f"{spec}: no such model{_near(name, source)} `edgekit models` lists the names")


def _tagged(name: str) -> list[str]:
    """[name] where it is an architecture of timm with one of its weight tags."""
    import timm

    architecture, dot, tag = name.partition(".")
    if not dot or architecture not in timm_names() or architecture in MOBILENET_V1_WIDTHS:
        return []
    return [name] if name in timm.list_models(f"{architecture}.{tag}", pretrained=True) else []


def _near(name: str, source: str | None) -> str:
    known: list[str] = []
    if source in (None, "torchvision"):
        known += torchvision_names()
    if source in (None, "timm"):
        known += timm_names()
    if source is None:
        known += ALIASES
    other = "timm" if source == "torchvision" else "torchvision"
    if source and _match(name, timm_names() if other == "timm" else torchvision_names()):
        return f" in {source}, {other} has it:"
    return did_you_mean(name.lower(), dict.fromkeys(known)) or ":"
