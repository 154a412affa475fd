"""Recipes: every name and type is checked, flags win, and what is shipped loads."""

import pytest

from edgekit.errors import UsageError
from edgekit.pipeline import recipe as recipes


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


def test_off_switches_an_optional_setting_off():
    recipe = recipes.from_dict({"model": "m", "verify": {"max_lsb": "off"}})
    assert recipe.verify.max_lsb is None
    assert recipes.from_dict(recipe.to_dict()) == recipe


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
    assert recipe.model == name


def test_shipped_recipes_are_found_in_any_spelling():
    assert recipes.shipped_for("MobileNetV3-Large") == recipes.shipped()["mobilenet_v3_large"]
    assert recipes.shipped_for("no_such_model") is None
