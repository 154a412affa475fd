"""What formats share: forms a target wants by name, types it may compute in, one result and one runner."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from edgekit.errors import UnsupportedError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.lowered import Form, lowering_of, prepared
from edgekit.targets import TARGETS, get_target

FORMATS = ("tflite", "onnx", "openvino")
STORED = {"unsigned", "symmetric", "float_bias", "padded_image"}  # forms that lowerings read


def passes(format: str) -> tuple[Any, ...]:
    return import_module(f"edgekit.lower.{format}.prepare").PASSES


@pytest.mark.parametrize("format", FORMATS)
def test_every_form_is_wanted_by_a_target_and_known_to_its_format(format: str) -> None:
    known = {step.name for step in passes(format) if isinstance(step, Form)}
    wanted = {form for target in TARGETS.values() if target.format == format for form in target.forms}
    assert wanted - STORED == known


@pytest.mark.parametrize("name", TARGETS)
def test_a_format_is_a_package_with_the_protocols_functions(name: str) -> None:
    lowering = lowering_of(get_target(name))
    assert all(callable(getattr(lowering, function)) for function in ("unsupported", "prepare", "lower"))


def graph(quant: QuantParams | None) -> Graph:
    x, y = Value("x", (1, 4)), Value("y", (1, 4))
    x.quant, y.quant = quant, quant
    return Graph([x], [y], [Node("relu", [x], [y], {}, "act")], "net")


def test_only_the_targets_that_want_a_form_run_its_pass() -> None:
    ran: list[str] = []

    def always(graph: Graph, target: Any) -> int:
        ran.append("always")
        return 0

    def sometimes(graph: Graph, target: Any) -> int:
        ran.append("sometimes")
        return 0

    target = get_target("tflite-float32")
    given = graph(None)
    assert prepared(given, target, (always, Form(sometimes))) is not given and ran == ["always"]
    prepared(given, replace(target, forms=frozenset({"sometimes"})), (always, Form(sometimes)))
    assert ran == ["always", "always", "sometimes"]


def test_a_value_of_another_type_is_one_line() -> None:
    wide = graph(QuantParams((1.0,), (0,), "int16"))
    with pytest.raises(UnsupportedError) as caught:
        lowering_of(get_target("onnx-int8")).prepare(wide, get_target("onnx-int8"))
    assert str(caught.value) == (
        "onnx-int8: x (input) is int16; y (relu at act) is int16: int8 or float32 is needed"
    )


def test_a_target_of_integers_alone_names_what_would_be_float() -> None:
    integer = replace(get_target("tflite-int8"), name="board-int8", dtypes=("int8",))
    assert integer.integer_only and not any(target.integer_only for target in TARGETS.values())
    with pytest.raises(
        UnsupportedError, match=r"board-int8: x \(input\) is float32; y \(relu at act\) is float32: int8"
    ):
        prepared(graph(None), integer, ())
    assert prepared(graph(QuantParams((1.0,), (0,), "int8")), integer, ()).outputs[0].quant is not None
