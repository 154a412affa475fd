"""A recipe, or what Python handed over, as a Job: model, weights, images."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from edgekit import zoo
from edgekit.data.source import Source
from edgekit.errors import DataError, UsageError
from edgekit.pipeline import recipe as recipes
from edgekit.pipeline.job import Job
from edgekit.pipeline.variant import GIVEN, ORIGINAL, Variant
from edgekit.targets import Target, get_target
from edgekit.zoo.user_code import evaluating


def targets_of(recipe: recipes.Recipe) -> list[Target]:
    """The targets a recipe names, for the runtimes it names."""
    found = [get_target(name) for name in recipe.target.names]
    oldest = recipe.target.min_runtime
    if oldest is None:
        return found
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", oldest):
        raise UsageError(f'[target] min_runtime = "{oldest}": a version such as "2.9"')
    return [replace(target, min_runtime=oldest) for target in found]


def resolve(recipe: recipes.Recipe, trust: bool) -> Job:
    """The model a recipe names, with the images to calibrate and judge it by.

    Args:
        trust: unpickle what files hold, see edgekit.zoo.
    """
    model = zoo.resolve(
        recipe.model,
        recipe.weights,
        trust=trust,
        resolution=recipe.resolution,
        seed=recipe.seed,
        images=recipe.data.source,
    )
    data, preprocessing = recipe.data, model.preprocessing
    if data.exif is not None:
        orientation = "applied" if data.exif == "apply" else "ignored"
        preprocessing = replace(preprocessing, orientation=orientation)
    calibration = Source(data.source, "calibration", data.calibration, preprocessing)
    evaluation = Source(data.source, "evaluation", data.evaluation, preprocessing)
    example = torch.zeros(model.input_shape)
    if not calibration.generated:  # a folder that cannot be used is said before minutes of work
        example, _ = torch.from_numpy(next(calibration.images.batches(1))), evaluation.images
        if tuple(example.shape) != model.input_shape:
            raise DataError(f"{data.source}: images of {tuple(example.shape)}: {model.input_shape} is needed")
    variant = _named(model)
    if recipe.original is not None:
        first = zoo.resolve(
            recipe.original,
            recipe.original_weights,
            trust=trust,
            resolution=recipe.resolution,
            seed=recipe.seed,
            images=recipe.data.source,
        )
        variant = replace(variant, step=GIVEN, parent=_named(first))
    return Job(
        name=model.name,
        variant=variant,
        examples=(example,),
        weights=model.weights,
        calibration=calibration,
        evaluation=evaluation,
        class_names=data.class_names or model.class_names,
        preprocessing=preprocessing.to_dict(),
    )


def _named(model: zoo.Model) -> Variant:
    """A resolved model as the original of its chain."""
    known = model.source in ("torchvision", "timm")
    identity = {"name": model.name, "source": model.source, "weights": model.weights} if known else None
    return Variant(ORIGINAL, model.name, model.module, identity)


def handed_over(model: torch.nn.Module, original: torch.nn.Module | None, name: str) -> Variant:
    """A module from Python as the last of its chain."""
    if original is None:
        return Variant(ORIGINAL, name, evaluating(model), None)
    first = Variant(ORIGINAL, type(original).__name__, evaluating(original), None)
    return Variant(GIVEN, name, evaluating(model), None, first)
