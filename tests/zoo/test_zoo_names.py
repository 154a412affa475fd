import subprocess
import sys

import pytest

from edgekit.errors import UnknownModelError, UsageError
from edgekit.zoo import resolve
from edgekit.zoo.names import ALIASES, Architecture, find_architecture, timm_names, torchvision_names

SPELLINGS = {
    "mobilenet_v3_large": ("torchvision", "mobilenet_v3_large"),
    "mobilenetv3_large": ("torchvision", "mobilenet_v3_large"),
    "MobileNetV3-Large": ("torchvision", "mobilenet_v3_large"),
    "mobilenetv3_small": ("torchvision", "mobilenet_v3_small"),
    "mobilenetv2": ("torchvision", "mobilenet_v2"),
    "resnet-18": ("torchvision", "resnet18"),
    "efficientnet-b0": ("torchvision", "efficientnet_b0"),
    "efficientnet_lite0": ("timm", "efficientnet_lite0"),
    "efficientnet-lite4": ("timm", "efficientnet_lite4"),
    "efficientnetv2_s": ("torchvision", "efficientnet_v2_s"),
    "shufflenetv2_x1_0": ("torchvision", "shufflenet_v2_x1_0"),
    "shufflenet_v2_x1.0": ("torchvision", "shufflenet_v2_x1_0"),
    "regnet_x_1_6gf": ("torchvision", "regnet_x_1_6gf"),
    "mobilenetv3_large_100": ("timm", "mobilenetv3_large_100"),
    "mobilenet_v1": ("timm", "mobilenetv1_100"),
    "xception": ("timm", "legacy_xception"),
    "coatnet_nano": ("timm", "coatnet_nano_rw_224"),
    "deit_tiny": ("timm", "deit_tiny_patch16_224"),
    "timm:resnet18": ("timm", "resnet18"),
    "tv:resnet18": ("torchvision", "resnet18"),
    "torchvision:resnet-18": ("torchvision", "resnet18"),
    "timm:efficientnet_b0.ra_in1k": ("timm", "efficientnet_b0.ra_in1k"),
}


@pytest.mark.parametrize("spec", SPELLINGS)
def test_a_spelling_finds_the_library_and_its_own_name(spec):
    assert find_architecture(spec) == Architecture(*SPELLINGS[spec])


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_leads_to_a_model_and_hides_none(alias):
    found = find_architecture(alias)
    assert ALIASES[alias].endswith(f":{found.name}")
    assert alias not in timm_names() and alias not in torchvision_names()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mobilnetv3_large", "did you mean mobilenet_v3_large"),
        ("efficientnet_lite9", "did you mean efficientnet_lite"),
        ("qqqqqqqqqqqq", "edgekit models"),
        ("", "edgekit models"),
        ("timm:", "edgekit models"),
        ("onnx:resnet18", "no library 'onnx'"),
        ("tv:efficientnet_lite0", "timm has it"),
        ("regnet_x-16gf", "regnet_x_16gf or regnet_x_1_6gf"),
        ("timm:efficientnet_b0.no_such_tag", "efficientnet_b0"),
    ],
)
def test_an_unknown_name_is_one_line_with_what_is_near(spec, words):
    with pytest.raises(UnknownModelError) as raised:
        find_architecture(spec)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spec", ["weights.pth", "model.safetensors", "model.tflite"])
def test_a_file_that_is_no_model_is_refused_with_what_is(spec):
    with pytest.raises(UsageError, match="--weights FILE"):
        resolve(spec)


@pytest.mark.parametrize("setting", [{"num_classes": 0}, {"resolution": -3}])
def test_impossible_numbers_are_refused(setting):
    with pytest.raises(UsageError, match="above 0"):
        resolve("mobilenet_v3_small", **setting)


def test_neither_importing_nor_listing_loads_torch():
    code = "import sys, edgekit.zoo as z; z.models(); print([m in sys.modules for m in ('torch', 'timm')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]"
