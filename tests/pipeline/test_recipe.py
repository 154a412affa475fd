"""Recipes: every name and type is checked, flags win, and what is shipped loads."""

import dataclasses

import pytest

from edgekit.errors import UsageError
from edgekit.pipeline import recipe as recipes
from edgekit.pipeline.judge import promises_of
from edgekit.targets import get_target
from edgekit.targets.promises import THRESHOLDS


def test_defaults_are_filled_in():
    recipe = recipes.from_dict({"model": "resnet18"})
    assert recipe.target.names == ("tflite-int8",)
    assert recipe.data.source == "embedded"
    assert recipe.device.threads == 1


def test_to_dict_reads_back_the_same():
    recipe = recipes.from_dict({"model": "m", "target": {"names": ["a", "b"]}, "verify": {"max_lsb": 2}})
    assert recipes.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, 'no model: model = "mobilenet_v3_large"'),
        ({"model": "m", "quantise": {}}, "'quantise' is not a setting; did you mean quantize?"),
        ({"model": "m", "quantize": {"profle": "fast"}}, "'profle' is not a setting; did you mean profile?"),
        ({"model": "m", "quantize": {"profile": "quick"}}, "one of 'fast', 'thorough'"),
        ({"model": "m", "quantize": {"gptq": 1}}, "true or false expected"),
        ({"model": "m", "data": {"calibration": "many"}}, "int expected"),
        ({"model": "m", "data": {"calibration": True}}, "int expected"),
        ({"model": "m", "data": {"evaluation": 0}}, "at least 1 image"),
        ({"model": "m", "device": {"threads": 0}}, "at least 1"),
        ({"model": "m", "device": {"names": ["pi5"]}}, "a build measures on this machine"),
        ({"model": "m", "machine": {"jobs": 0}}, "[machine] jobs = 0: at least 1"),
        ({"model": "m", "target": {"names": "tflite-int8"}}, "a list of names"),
        ({"model": "m", "target": {"names": []}}, "name at least one"),
        ({"model": "m", "target": "tflite-int8"}, "a section with settings"),
        ({"model": 3}, "str expected"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_says_what_would_be_accepted(content, message):
    with pytest.raises(UsageError) as caught:
        recipes.from_dict(content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_off_is_not_the_same_as_absent():
    recipe = recipes.from_dict({"model": "m", "verify": {"max_lsb": "off"}, "quantize": {"gptq": "off"}})
    assert recipe.verify.asked() == {"max_lsb": "off"} and recipe.quantize.gptq is None
    assert recipes.from_dict(recipe.to_dict()) == recipe


def test_every_threshold_is_a_setting_of_every_target():
    assert {f.name for f in dataclasses.fields(recipes.Limits)} == set(THRESHOLDS)


def test_a_target_has_a_table_of_its_own_that_wins():
    verify = {"max_undelegated": 0, "max_lsb": 2, "openvino-int8": {"max_undelegated": "off"}}
    recipe = recipes.from_dict({"model": "m", "verify": verify})
    openvino, onnx = (promises_of(recipe, get_target(name)) for name in ("openvino-int8", "onnx-int8"))
    assert (openvino.max_undelegated, openvino.remarks) == (None, {"max_undelegated"})
    assert (onnx.max_undelegated, onnx.remarks) == (0, frozenset())
    assert (openvino.max_lsb, onnx.max_lsb) == (2, 2)
    assert openvino.min_int8_macs_share == get_target("openvino-int8").promises.min_int8_macs_share
    assert recipes.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("verify", "message"),
    [
        ({"openvino-int4": {}}, "[verify.openvino-int4] is not a target; did you mean openvino-int8"),
        ({"onnx-int8": {"max_undelgated": 0}}, "[verify.onnx-int8] 'max_undelgated' is not a setting; did"),
        ({"onnx-int8": {"max_undelegated": "of"}}, "[verify.onnx-int8] max_undelegated = 'of': int expected"),
        ({"onnx-int8": {"tensorflow": True}}, "[verify.onnx-int8] 'tensorflow' is not a setting"),
        ({"tflite-int8": 3}, "[verify] 'tflite-int8' is not a setting"),
    ],
)
def test_a_wrong_table_is_one_line(verify, message):
    with pytest.raises(UsageError) as caught:
        recipes.from_dict({"model": "m", "verify": verify})
    assert message in str(caught.value)


def test_a_flag_wins_over_the_tables_of_targets(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('model = "a"\n[verify.tflite-int8]\nmax_undelegated = "off"\nmax_lsb = 3\n')
    recipe = recipes.load(path, {"verify": {"max_undelegated": 0, "max_top1_drop": None}})
    assert recipe.verify.asked_of("tflite-int8") == {"max_undelegated": 0, "max_lsb": 3}


def test_flags_win_over_the_file_and_absent_flags_do_not(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('model = "a"\n[data]\ncalibration = 7\nevaluation = 8\n')
    recipe = recipes.load(path, {"model": None, "data": {"calibration": None, "evaluation": 9}})
    assert (recipe.model, recipe.data.calibration, recipe.data.evaluation) == ("a", 7, 9)


@pytest.mark.parametrize("content", [b"model = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_one_line(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not valid TOML"):
        recipes.load(path)


def test_a_missing_recipe_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot read the recipe"):
        recipes.load(tmp_path / "none.toml")


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_every_shipped_recipe_loads(name):
    recipe = recipes.load(recipes.shipped()[name])
    assert recipe.model == name or name.startswith(f"{recipe.model}_")  # a step's name behind the model's


def test_shipped_recipes_are_found_in_any_spelling():
    assert recipes.shipped_for("MobileNetV3-Large") == recipes.shipped()["mobilenet_v3_large"]
    assert recipes.shipped_for("no_such_model") is None
