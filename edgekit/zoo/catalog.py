"""The catalogue: what `edgekit models` lists, read from a table so that neither torch nor timm is imported.

    python -m edgekit.zoo.catalog --refresh      rebuild catalog.json with the libraries that are installed

A name that is not in the table still resolves. MACs are counted as `counting.py` says, at each model's own
resolution, with the classifier of its default weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.zoo import cache as weight_cache
from edgekit.zoo.names import ALIASES, PREFIXES, Architecture, normalise

TABLE = Path(__file__).parent / "catalog.json"
REFERENCE_INDEX = Path(__file__).parent / "reference" / "index.json"

TIMM_FAMILIES = (
    "mobilenetv[1234]_*", "mobilenetv4_*", "mobilenet_edgetpu_*", "tf_mobilenetv3_*",
    "efficientnet_b[0-7]", "efficientnet_e[sml]", "efficientnet_lite*", "efficientnetv2_rw_*",
    "tf_efficientnet_lite*", "tf_efficientnetv2_*",
    "mnasnet_*", "semnasnet_*", "spnasnet_*", "fbnet*", "ghostnet*", "hardcorenas_*", "tinynet_*", "lcnet_*",
    "mobileone_*", "mobilevit_*", "mobilevitv2_*", "efficientvit_b*", "edgenext_*", "repvit_*", "fastvit_t*",
    "fastvit_s*", "levit_*", "repvgg_*", "hrnet_*",
    "resnet10*", "resnet14*", "resnet18*", "resnet26*", "resnet34*", "resnet50", "resnet50[cdst]",
    "resnet101*", "resnet152*", "resnetv2_50", "resnetv2_101", "resnext50*", "resnext101_*", "wide_resnet*",
    "seresnet18", "seresnet34", "seresnet50", "seresnext50_32x4d", "senet154", "legacy_se*",
    "legacy_xception", "res2net50*", "resnest14d", "resnest26d", "resnest50d", "regnetx_*", "regnety_*",
    "dla34", "dla60*", "selecsls*", "cs3darknet_*", "densenet*", "xception*", "inception_*", "nasnetalarge",
    "pnasnet5large", "vgg*", "convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano",
    "convnext_tiny", "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch32_224",
    "vit_base_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "deit_*", "deit3_small*",
    "swin_*", "coatnet_*_224",
)  # fmt: skip


@dataclass(frozen=True)
class ModelInfo:
    """One row: `gmacs` at `resolution`, `weights` at hand: "reference", "imagenet" (in the cache) or "-"."""

    name: str
    source: str
    params: int
    gmacs: float
    resolution: int
    weights: str

    @property
    def spec(self) -> str:
        """What `resolve` takes for exactly this row."""
        return f"{'tv' if self.source == 'torchvision' else 'timm'}:{self.name}"


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """The shipped table."""
    return tuple(json.loads(TABLE.read_text())["models"])


def models(pattern: str | None = None) -> list[ModelInfo]:
    """The rows that match, torchvision's first, by name.

    Args:
        pattern: a glob (`mobilenet*`), or any part of a name in any spelling (`mobilenetv3`); `tv:` or
            `timm:` in front keeps one library. None lists everything.
    """
    references = json.loads(REFERENCE_INDEX.read_text()) if REFERENCE_INDEX.is_file() else {}
    return [
        ModelInfo(
            row["name"],
            row["source"],
            row["params"],
            row["macs"] / 1e9,
            row["resolution"],
            _at_hand(row, references),
        )
        for row in rows()
        if pattern is None or _matches(row, pattern)
    ]


def _matches(row: dict[str, Any], pattern: str) -> bool:
    prefix, colon, rest = pattern.partition(":")
    if colon:
        if PREFIXES.get(prefix) != row["source"]:
            return False
        pattern = rest
    if any(c in pattern for c in "*?["):
        return fnmatchcase(row["name"], pattern.lower()) or fnmatchcase(
            normalise(row["name"]), normalise(pattern)
        )
    if normalise(pattern) in normalise(row["name"]):
        return True
    targets = [t for alias, t in ALIASES.items() if normalise(alias) == normalise(pattern)]
    return f"{'tv' if row['source'] == 'torchvision' else 'timm'}:{row['name']}" in targets


def _at_hand(row: dict[str, Any], references: dict[str, Any]) -> str:
    reference = references.get(row["name"])
    if reference and reference["source"] == row["source"]:
        return "reference"
    where = (row.get("file", ""), row.get("hub", ""), tuple(row.get("hub_files", ())))
    return "imagenet" if weight_cache.cached(*where) else "-"


def architectures() -> Iterator[Architecture]:
    """What the table covers: all of torchvision's classification models, the families of timm above."""
    from edgekit.zoo.names import timm_names, torchvision_names

    for name in torchvision_names():
        yield Architecture("torchvision", name)
    for name in sorted(timm_names()):
        if any(fnmatchcase(name, family) for family in TIMM_FAMILIES):
            yield Architecture("timm", name)


def measure(architecture: Architecture) -> dict[str, Any]:
    """One row of the table, from the module itself; nothing is downloaded."""
    from edgekit.zoo import counting, libraries

    side = libraries.default_preprocessing(architecture).resolution
    module = libraries.build_empty(architecture)
    try:
        macs = counting.count_macs(module, (1, 3, side, side))
    except (NotImplementedError, RuntimeError, TypeError):  # a forward pass that reads a tensor's value
        module = libraries.build(architecture)
        macs = counting.count_macs(module, (1, 3, side, side))
    row = {
        "name": architecture.name,
        "source": architecture.source,
        "params": counting.count_parameters(module),
        "macs": macs,
        "resolution": side,
    }
    if published := libraries.published(architecture):
        row |= {"file": published.file_name} if published.url else {}
        row |= {"hub": published.hub_id, "hub_files": list(published.hub_files)} if published.hub_id else {}
    return row


def refresh(path: Path = TABLE) -> int:
    """Write the table; the number of rows."""
    import timm
    import torchvision

    found = []
    for architecture in architectures():
        found.append(measure(architecture))
        print(architecture.source, architecture.name, file=sys.stderr, flush=True)
    made_with = {"torchvision": torchvision.__version__.partition("+")[0], "timm": timm.__version__}
    lines = ",\n".join(json.dumps(row) for row in found)
    partial = path.with_suffix(".partial")
    partial.write_text(f'{{"made_with": {json.dumps(made_with)},\n"models": [\n{lines}\n]}}\n')
    partial.replace(path)
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgekit.zoo.catalog", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--refresh", action="store_true", help="rebuild the table (a few minutes)")
    parser.add_argument("pattern", nargs="?")
    options = parser.parse_args()
    if options.refresh:
        print(f"{refresh()} models")
        return
    for info in models(options.pattern):
        print(
            f"{info.name:40} {info.source:11} {info.params / 1e6:8.2f} M {info.gmacs:8.3f} GMACs "
            f"{info.resolution:4} px  {info.weights}"
        )


if __name__ == "__main__":
    main()
