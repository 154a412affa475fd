"""edgekit: an edge-deployment compiler for PyTorch vision models.

    import edgekit
    run = edgekit.build(module, targets=["tflite-int8"], calibration=images, out="build/mine")

Nothing is computed at import; torch loads only when a command needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from edgekit.graph.module import GraphModule
    from edgekit.pipeline.pipeline import Run
    from edgekit.qat.module import QuantizedModule

__version__ = "0.1.0"
__all__ = ["__version__", "build", "graph_module", "prune", "qat"]


def build(
    model: Any,
    *,
    targets: Sequence[str] = ("tflite-int8",),
    calibration: Any = None,
    evaluation: Any = None,
    out: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    original: Any = None,
    task: str = "auto",
    **settings: Any,
) -> Run:
    """Build artifacts with their proofs.

    Args:
        model: an nn.Module in eval mode, or a name as on the command line.
        targets: names of targets, see edgekit.targets.
        calibration: float32 (N, C, H, W), already preprocessed; the embedded set when None. A model of
            several inputs takes a tuple or list of one array (N, ...) an input, or a dict by the names of its
            forward's parameters.
        evaluation: the same, optional, alone or with labels: (images, labels), ((a, b), labels), or a dict
            with "labels" beside the inputs. Labels are (N,) classes or (N, H, W) masks.
        out: directory of the report and the artifacts; default build/NAME.
        class_names: one name a class, for labels.txt.
        original: the module that `model` was made from (pruned, retrained, rewritten): every proof refers to
            its answers. Same inputs and outputs.
        task: what the outputs mean: "tensors", "classification", "segmentation", or "auto", see
            edgekit.tasks.
        settings: sections of a recipe, e.g. quantize={"profile": "fast"}, device={"profile": "off"}.
    Returns: a Run: `run.artifacts["tflite-int8"].path`, `run.report` (the content of report.json), `run.ok`.
    Raises: EdgekitError for input that cannot be used. A failed gate does not raise: see `run.ok` and
        `run.raise_for_gates()`.
    """
    from edgekit.pipeline import pipeline

    return pipeline.build_from_python(
        model,
        targets=tuple(targets),
        calibration=calibration,
        evaluation=evaluation,
        out=out,
        class_names=class_names,
        settings=settings if task == "auto" else {"task": {"name": task}, **settings},
        original=original,
    )


def graph_module(module: Any, example: Any) -> GraphModule:
    """The captured graph of a module as a module that trains.

    Args:
        module: an nn.Module in eval mode; it is not changed, nothing is shared with it.
        example: float32 (1, C, H, W), or one such tensor an input.
    Returns: an nn.Module with the original's parameters and running statistics under their paths; its
        `to_graph()` gives the graph with the present weights.
    Raises: CaptureError for what cannot be captured.
    """
    from edgekit.capture import capture
    from edgekit.graph.module import as_module

    return as_module(capture(module, example, training=True))


def prune(
    module: Any,
    example: Any,
    *,
    keep: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency_ms: float | None = None,
    dead: bool = False,
    device: str = "host",
    calibration: Any = None,
    **settings: Any,
) -> GraphModule:
    """A module with fewer channels, under one budget.

    Args:
        module: an nn.Module in eval mode; it is not changed, nothing is shared with it.
        example: float32 (1, C, H, W), or one such tensor an input.
        keep, macs, params: share of the removable channels, MACs or parameters that stays, above 0.
        latency_ms: p50 of the int8 TFLite file on `device`, as its cost table predicts it.
        dead: first remove channels that are zero for every input; alone, it changes no answer.
        device: id of the inventory; "host" is this machine.
        calibration: as in `build`; channels are judged, and what is left is fitted, by what these images
            do. Without any, both is done without: channels go by the size of their weights.
        settings: score, scope, rounds, refit, loss, cost, measure, step, protect, seed: see
            edgekit.prune.prune_graph.
    Returns: an nn.Module of the same inputs and outputs, parameters under the original's paths; `.pruning` is
        the record of what went, and what could not and why.
    Raises: PruneError for settings that exclude each other and budgets that cannot be met, CaptureError.
    """
    from edgekit.prune.module import prune_module

    return prune_module(
        module,
        example,
        keep=keep,
        macs=macs,
        params=params,
        latency_ms=latency_ms,
        dead=dead,
        device=device,
        calibration=calibration,
        **settings,
    )


def qat(module: Any, example: Any, calibration: Any, **settings: Any) -> QuantizedModule:
    """The deployed integers of a module as a module that trains, in a loop of your own.

    Its forward is the simulation of the int8 file; gradients pass straight through the rounding. Batch norm
    is folded into weights and biases. `edgekit.build` takes it back, trained, with the scales it has then.

    Args:
        module: an nn.Module in eval mode; it is not changed, nothing is shared with it.
        example: float32 (1, C, H, W), or one such tensor an input.
        calibration: as in `build`: what the scales are chosen by.
        settings: of the calibration, see edgekit.quantize.QuantizeSettings.
    Returns: an nn.Module of the same inputs and outputs, weights and biases under the original's paths,
        scales beside them as logarithms of what calibration chose.
    Raises: CaptureError, QuantizationError.
    """
    from edgekit.qat.prepare import quantized_module

    return quantized_module(module, example, calibration, **settings)
