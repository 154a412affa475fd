"""Parameters and MACs against published figures, counted on the meta device; the table against both."""

import json

import pytest
import torch

from edgekit.zoo import catalog, models
from edgekit.zoo.counting import count_macs, count_parameters
from edgekit.zoo.libraries import build_empty
from edgekit.zoo.names import ALIASES, Architecture

# Exact, from the metadata of torchvision's checkpoints.
TORCHVISION = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856,
    "densenet201": 20_013_928,
    "regnet_y_400mf": 4_344_144,
    "regnet_x_3_2gf": 15_296_552,
    "vit_b_16": 86_567_656,
    "vit_l_16": 304_326_632,
    "swin_b": 87_768_224,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_v2_s": 21_458_488,
    "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "mnasnet1_0": 4_383_312,
}
# Millions, two decimals, from timm's result tables; MobileNet V1 exact.
TIMM = {
    "efficientnet_lite0": 4.65,
    "efficientnet_lite1": 5.42,
    "efficientnet_lite2": 6.09,
    "efficientnet_lite3": 8.20,
    "efficientnet_lite4": 13.01,
    "repvgg_a0": 9.11,
    "hrnet_w18": 21.30,
}
MOBILENET_V1 = {
    "mobilenetv1_100": 4_231_976,
    "mobilenetv1_075": 2_585_560,
    "mobilenetv1_050": 1_331_592,
    "mobilenetv1_025": 470_072,
}
# GMACs at the models' own resolution, three decimals or what the source gives.
GMACS = {
    "tv:alexnet": (0.714, 3),
    "tv:googlenet": (1.498, 3),
    "tv:inception_v3": (5.71, 2),
    "tv:resnet18": (1.81, 2),
    "tv:resnet50": (4.09, 2),
    "tv:resnext50_32x4d": (4.23, 2),
    "tv:densenet121": (2.83, 2),
    "tv:regnet_y_400mf": (0.402, 3),
    "tv:regnet_x_3_2gf": (3.18, 2),
    "tv:vit_b_16": (17.56, 2),
    "tv:swin_b": (15.43, 2),
    "tv:efficientnet_b0": (0.39, 2),
    "tv:efficientnet_v2_s": (8.37, 2),
    "tv:mobilenet_v2": (0.301, 3),
    "tv:mobilenet_v3_large": (0.217, 3),
    "tv:mobilenet_v3_small": (0.057, 3),
    "tv:shufflenet_v2_x0_5": (0.040, 3),
    "tv:shufflenet_v2_x1_0": (0.145, 3),
    "tv:mnasnet1_0": (0.314, 3),
    "timm:mobilenetv1_100": (0.569, 3),
}


def empty(source: str, name: str, **settings) -> torch.nn.Module:
    return build_empty(Architecture(source, name), **settings)


def row(spec: str) -> dict:
    return next(
        r for r in catalog.rows() if f"{'tv' if r['source'] == 'torchvision' else 'timm'}:{r['name']}" == spec
    )


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_parameters_are_exact(name):
    assert count_parameters(empty("torchvision", name)) == TORCHVISION[name]
    assert row(f"tv:{name}")["params"] == TORCHVISION[name]


def test_inception_v3_with_and_without_its_auxiliary_classifier():
    assert count_parameters(empty("torchvision", "inception_v3", aux_logits=True)) == 27_161_264
    assert count_parameters(empty("torchvision", "inception_v3")) == 23_834_568


@pytest.mark.parametrize("name", TIMM)
def test_timm_parameters_agree_with_its_tables(name):
    assert round(count_parameters(empty("timm", name)) / 1e6, 2) == TIMM[name]
    assert round(row(f"timm:{name}")["params"] / 1e6, 2) == TIMM[name]


@pytest.mark.parametrize("name", MOBILENET_V1)
def test_width_multipliers_of_mobilenet_v1_are_exact(name):
    assert count_parameters(empty("timm", name)) == MOBILENET_V1[name]


@pytest.mark.parametrize("spec", GMACS)
def test_the_table_has_the_published_macs(spec):
    published, digits = GMACS[spec]
    assert round(row(spec)["macs"] / 1e9, digits) == published


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18", "regnet_x_400mf", "vit_b_16", "vit_h_14"])
def test_the_table_is_what_measuring_gives(name):
    assert catalog.measure(Architecture("torchvision", name)) == row(f"tv:{name}")


def test_counting_follows_its_convention():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1, groups=2),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 5),
    )
    assert count_macs(module, (1, 4, 4, 4)) == 8 * 2 * 9 * 16 + 128 * 5
    assert count_parameters(module) == 8 * 2 * 9 + 8 + 16 + 128 * 5 + 5


def test_the_command_that_rebuilds_the_table(offline, monkeypatch):
    few = [Architecture("torchvision", "squeezenet1_1"), Architecture("timm", "mobilenetv1_025")]
    monkeypatch.setattr(catalog, "architectures", lambda: iter(few))
    assert catalog.refresh(offline / "catalog.json") == 2
    written = json.loads((offline / "catalog.json").read_text())["models"]
    assert written == [row("tv:squeezenet1_1"), row("timm:mobilenetv1_025")]


def test_the_table_covers_the_libraries_and_the_aliases():
    specs = {info.spec for info in models()}
    assert len(specs) == len(models())
    assert {f"tv:{name}" for name in TORCHVISION} <= specs
    assert {f"timm:{name}" for name in (*TIMM, *MOBILENET_V1)} <= specs
    assert set(ALIASES.values()) <= specs


@pytest.mark.parametrize(
    ("pattern", "some", "none"),
    [
        ("mobilenetv3", "mobilenet_v3_large", "mobilenet_v2"),
        ("mobilenet_v3*", "mobilenet_v3_small", "tf_mobilenetv3_small_100"),
        ("tv:resnet", "resnet18", "resnet50d"),
        ("xception", "legacy_xception", "resnet18"),
        ("coatnet_nano", "coatnet_nano_rw_224", "coatnet_0_224"),
    ],
)
def test_a_pattern_selects(pattern, some, none):
    names = [info.name for info in models(pattern)]
    assert some in names and none not in names
    assert models("no such model") == []


def test_weights_at_hand_are_named(offline, monkeypatch):
    monkeypatch.setattr(catalog, "REFERENCE_INDEX", offline / "index.json")
    assert {info.weights for info in models()} == {"-"}
    (offline / "index.json").write_text('{"mobilenet_v2": {"source": "torchvision"}}')
    checkpoints = offline / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / row("tv:resnet18")["file"]).touch()
    hub = offline / "hub" / "hub" / f"models--{row('timm:efficientnet_lite0')['hub'].replace('/', '--')}"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "snapshots" / "abc").mkdir(parents=True)
    (hub / "snapshots" / "abc" / "model.safetensors").touch()
    found = {info.spec: info.weights for info in models() if info.weights != "-"}
    assert found == {
        "tv:mobilenet_v2": "reference",
        "tv:resnet18": "imagenet",
        "timm:efficientnet_lite0": "imagenet",
    }
