"""OpenVINO's own quantizer on our float model, to compare with: a float graph and images in, int8 files out.

NNCF chooses ranges, placement and bias corrections by its defaults; nothing of our calibration is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from io import StringIO
from typing import Any

import numpy as np

from edgekit.errors import DataError, UsageError
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Lowered, LoweredOp
from edgekit.lower.openvino.file import pack
from edgekit.lower.openvino.lowering import build, lowered
from edgekit.lower.openvino.prepare import prepare
from edgekit.targets import Target, get_target


def quantize_with_nncf(
    graph: Graph, target: Target, images: Iterable[np.ndarray | Sequence[np.ndarray]], **settings: Any
) -> Lowered:
    """The int8 files that `nncf.quantize` makes of a float graph.

    Args:
        graph: after the float passes; its annotations are ignored.
        images: calibration inputs, float32 (C, H, W) or (1, C, H, W) each, or a list of one array an input;
            all of them are used.
        settings: further arguments of `nncf.quantize`, such as preset or fast_bias_correction.
    Raises: UsageError when a package is missing, DataError without images or for one of another shape.
    """
    nncf = _nncf()
    kin = replace(get_target(target.baseline), weights="float32")
    floating = prepare(graph, kin)
    ctx, model = build(floating, target)
    samples = [_sample(graph, image) for image in images]
    if not samples:
        raise DataError("[quantize] nncf: no calibration images were given: at least one is needed")
    with redirect_stdout(StringIO()):  # its progress bars
        made = nncf.quantize(model, nncf.Dataset(samples), **({"subset_size": len(samples)} | settings))
    own = {op.name: op for op in ctx.operators}
    ctx.operators = _name_in_order(made, own)
    return lowered(ctx, made, pack(made))


def _sample(graph: Graph, image: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    found = []
    arrays = [image] if isinstance(image, np.ndarray) else image
    for value, array in zip(graph.inputs, arrays, strict=True):
        shape = value.shape
        if array.shape not in (shape, shape[1:]):
            raise DataError(
                f"[quantize] nncf: an image of shape {array.shape} was given: {shape[1:]} is needed"
            )
        found.append(np.ascontiguousarray(array.reshape(shape), np.float32))
    return found[0] if len(found) == 1 else tuple(found)


def _name_in_order(model: Any, own: dict[str, LoweredOp]) -> list[LoweredOp]:
    """Names for what NNCF added, which counts operators across the process; returns all operators.

    An added operator is called after the first one of ours that it feeds, and so after its module.
    """
    order = list(model.get_ordered_ops())
    fixed = {n.get_friendly_name() for n in order if n.get_friendly_name() in own}
    fixed |= {n.get_friendly_name() for n in order if n.get_type_name() in ("Parameter", "Result")}
    counts: dict[str, int] = {}
    operators: dict[str, LoweredOp] = {}
    home: dict[str, LoweredOp | None] = {}
    for node in reversed(order):
        name = node.get_friendly_name()
        if name in fixed:
            home[name] = own.get(name)
            if name in own:
                operators[name] = own[name]
            continue
        reader = _first_reader(node)
        kin = home.get(reader)
        stem = f"{kin.name if kin else 'graph'}/{node.get_type_name()}"
        counts[stem] = counts.get(stem, 0) + 1
        name = f"{stem}_{counts[stem]}"
        node.set_friendly_name(name)
        home[name] = kin
        if node.get_type_name() != "Constant" and kin:
            operators[name] = LoweredOp(node.get_type_name(), kin.op, kin.source, kin.node_index, (), name)
    return [operators[n.get_friendly_name()] for n in order if n.get_friendly_name() in operators]


def _first_reader(node: Any) -> str:
    names = [
        reader.get_node().get_friendly_name()
        for output in node.outputs()
        for reader in output.get_target_inputs()
    ]
    return min(names, default="")


def _nncf() -> Any:
    try:
        return import_module("nncf")
    except ImportError as error:
        raise UsageError(
            "[quantize] nncf: the package is not installed: pip install 'edgekit[openvino]'"
        ) from error
