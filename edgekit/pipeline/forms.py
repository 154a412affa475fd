"""The forms of a model that a build looks at: what is captured, what steps make of it, optimized.

Enters: a Job with its chain of given variants. Leaves: one `Form` a variant, from the original to the one
that is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit import capture, passes
from edgekit.capture import onnx as onnx_file
from edgekit.graph.file import load, save
from edgekit.graph.ir import Graph
from edgekit.passes import PassRecord
from edgekit.pipeline import steps
from edgekit.pipeline.job import Form, Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line, Session
from edgekit.pipeline.variant import Variant, require_same_signature
from edgekit.pipeline.versions import versions
from edgekit.qat.module import QuantizedModule
from edgekit.runtimes.onnxruntime.run import open_session


def forms_of(session: Session, recipe: Recipe, job: Job) -> tuple[list[Form], list[PassRecord]]:
    """Every variant with its optimized graph, and what was rewritten in the last one.

    Raises: UsageError where a variant cannot be compared with its original.
    """
    given = list(dict.fromkeys((job.variant.original, job.variant)))
    training = bool(steps.asked(recipe))
    graphs = [_captured(session, job, variant, training) for variant in given]
    made = steps.made(session, recipe, job, graphs[0], graphs[-1])
    graphs += [variant.graph.copy() for variant in made if variant.graph is not None]
    with session.step("optimize"):
        rewrites = [passes.optimize(graph) for graph in graphs][-1]
    forms = [Form(variant, graph) for variant, graph in zip([*given, *made], graphs, strict=True)]
    for form in forms[1:]:
        require_same_signature(forms[0].graph, form.graph, f"{job.name} ({form.variant.step})")
    return forms, rewrites


def untimed_forms(forms: list[Form]) -> list[Form]:
    """Those before the last whose layers no later one has: what takes milliseconds of its own."""
    return [
        form
        for i, form in enumerate(forms[:-1])
        if not any(same_layers(form.graph, later.graph) for later in forms[i + 1 :])
    ]


def same_layers(first: Graph, second: Graph) -> bool:
    """Whether two graphs run the same operators on the same shapes, whatever their weights are."""
    return _layers(first) == _layers(second)


def _layers(graph: Graph) -> list[Any]:
    index = {value: i for i, value in enumerate(graph.values())}
    return [
        (
            node.op,
            repr(sorted(node.attrs.items())),
            [None if value is None else (index[value], value.shape) for value in node.inputs],
            [value.shape for value in node.outputs],
        )
        for node in graph.nodes
    ]


def _captured(session: Session, job: Job, variant: Variant, training: bool) -> Graph:
    """The graph of a given variant; with what only training needs where steps are made of it."""
    module, label = variant.module, "" if job.variant.parent is None else variant.step
    assert module is not None
    if isinstance(module, QuantizedModule):
        return module.to_graph()
    if variant.identity is None:
        with session.step(f"capture {label}".strip()):
            if (program := getattr(module, "exported", None)) is not None:
                return capture.import_program(program, variant.name, job.examples, training=training)
            if (file := getattr(module, "imported", None)) is not None:
                return _proven(variant, file)
            return capture.capture(module, job.examples, variant.name, training=training)

    def make(directory: Path, _line: Line) -> None:
        graph = capture.capture(module, job.examples, variant.name, training=training)
        save(graph, directory / "graph.safetensors")

    key = {
        "model": variant.identity,
        "input": list(job.examples[0].shape),
        "training": training,
        "versions": versions(),
    }
    return load(session.stage("capture", key, make, label) / "graph.safetensors")


def _proven(variant: Variant, file: onnx_file.OnnxFile) -> Graph:
    """The graph of an ONNX file, a float one held against ONNX Runtime."""
    found = getattr(variant.module, "graph", None)
    assert isinstance(found, Graph)
    graph = found.copy()
    if onnx_file.is_quantized(graph):  # by its definition: 8-bit kernels of old CPUs saturate
        onnx_file.prove(graph, file)
        return graph
    runtime = open_session(file.model.SerializeToString(), variant.name)
    names = list(file.inputs)
    onnx_file.prove(graph, file, lambda arrays: runtime.run(None, dict(zip(names, arrays, strict=True))))
    return graph
