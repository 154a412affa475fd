"""The stages in order: read this first.

    resolve    zoo       name -> nn.Module, weights, preprocessing
    capture    capture   nn.Module -> Graph, proven against eager
    lite, prune, train   Graph -> Graph, the steps a recipe asks for (`steps/`)
    optimize   passes    Graph -> Graph
    reference            the float graph's answers on the evaluation images
    quantize   quantize  Graph -> annotated Graph
    qat        qat       annotated Graph -> annotated Graph, where a recipe asks for it
    mixed      mixed     a precision for every node, where a recipe asks (`pipeline/mixed.py`)
    biases     quantize  a target's Graph -> the same with biases for what it leaves in float
    lower      lower     Graph -> model file, one a target
    audit      verify    what the file really holds and what runs where
    fidelity   verify    integer simulation against the runtime
    drift      verify    the artifact's answers against the reference's
    agreement  verify    the int8 artifacts' answers against each other's
    latency    verify    fresh processes, float and artifact interleaved
    times      verify    which layers the milliseconds go to
    report     evidence  gates, bundle, report.json, report.html, report.md

Each result is stored under the hash of everything that went into it (`session.py`), so a second build
redoes only what changed, and a killed one resumes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from edgekit import capture
from edgekit.data.arrays import array_images, evaluation_images
from edgekit.data.source import Given, Source
from edgekit.errors import UnsupportedError, UsageError
from edgekit.files import default_root, refuse_unwritable, sha256_file
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import lowering_of
from edgekit.lower.openvino.nncf import quantize_with_nncf
from edgekit.lower.ports import Ports
from edgekit.pipeline import evidence, mixed, proofs, qat, threads
from edgekit.pipeline import recipe as recipes
from edgekit.pipeline.answers import answered, task_of, variant_drift
from edgekit.pipeline.cache_limit import cache_limit
from edgekit.pipeline.calibration import calibration_rows
from edgekit.pipeline.class_names import with_class_names
from edgekit.pipeline.forms import forms_of, untimed_forms
from edgekit.pipeline.job import Built, Facts, Form, Job, Quantized, Run
from edgekit.pipeline.predicted import predict
from edgekit.pipeline.proofs.agreement import agreed
from edgekit.pipeline.proofs.run import runtime_of
from edgekit.pipeline.resolve import handed_over, resolve, targets_of
from edgekit.pipeline.session import Display, Line, Session
from edgekit.pipeline.store import Store
from edgekit.pipeline.versions import versions
from edgekit.qat.module import QuantizedModule
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.quantize.given import complete, is_given
from edgekit.quantize.placement import fit_biases
from edgekit.runtimes.audit import module_names
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import TARGETS, Target, get_target
from edgekit.targets.promises import OFF
from edgekit.targets.target import OWN

_BATCH = 32
_TIMED_IMAGES = 8  # to calibrate what is only timed
_MEANS, _ORDER = "means.safetensors", mixed.ORDER


def build(
    recipe: recipes.Recipe,
    *,
    out: str | os.PathLike[str] | None = None,
    trust: bool = False,
    cache: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    display: Display | None = None,
) -> Run:
    """Build everything a recipe asks for.

    Args:
        out: directory; default build/NAME. trust: unpickle what files hold, see edgekit.zoo.
        cache: directory of stage results. display: where progress goes.
    Raises: EdgekitError before anything is written under `out`; a failed gate does not raise.
    """
    targets = targets_of(recipe)
    with _session(recipe.machine, cache, use_cache, display) as session:
        with session.step("resolve"):
            job = resolve(recipe, trust)
        return _build(session, recipe, job, targets, out)


def build_from_python(
    model: torch.nn.Module | str,
    *,
    targets: Sequence[str],
    calibration: Any,
    evaluation: Any,
    out: str | os.PathLike[str] | None,
    class_names: Sequence[str] | None,
    settings: dict[str, Any],
    original: torch.nn.Module | None = None,
) -> Run:
    """The body of `edgekit.build`; see there."""
    where = "edgekit.build"
    settings = {**settings, "target": {"names": list(targets), **settings.get("target", {})}}
    if class_names is not None:
        settings["data"] = {**settings.get("data", {}), "class_names": list(class_names)}
    if isinstance(model, str):
        if calibration is not None or evaluation is not None:
            raise UsageError(f"{where}: images with a model's name: data={{'source': 'imagefolder:PATH'}}")
        if original is not None:
            raise UsageError(f"{where}: an original module with a model's name: original by its name too")
        return build(recipes.from_dict({"model": model, **settings}, where), out=out)
    name = type(model).__name__
    recipe = recipes.from_dict({"model": name, "weights": "as given", **settings}, where)
    if calibration is None:
        raise UsageError(f"{where}: no calibration images: float32 (N, C, H, W), preprocessed")
    parameters = capture.parameters(model)
    images = array_images("calibration", calibration, parameters=parameters)
    judged = None
    if evaluation is not None:
        judged = Given(evaluation_images(evaluation, len(images.arrays), class_names, parameters))
    weights = {"kind": "as given", "source": "the module handed over", "sha256": None, "untrained": False}
    job = Job(
        name=name,
        variant=handed_over(model, original, name),
        examples=tuple(torch.from_numpy(array[:1]) for array in images.arrays),
        weights=weights,
        calibration=Given(images),
        evaluation=judged,
        class_names=recipe.data.class_names,
        preprocessing=None,
    )
    with _session(recipe.machine, None, True, None) as session:
        return _build(session, recipe, job, targets_of(recipe), out)


@contextmanager
def _session(
    machine: recipes.Machine,
    cache: str | os.PathLike[str] | None,
    use_cache: bool,
    display: Display | None,
) -> Iterator[Session]:
    with threads.using(machine.jobs):
        if use_cache:
            root = Path(cache) if cache else default_root()
            store = Store(root, cache_limit(machine.cache_limit, root))
            with store.lease():
                yield Session(store, display)
        else:
            with Store.temporary() as store:
                yield Session(store, display)


def _build(
    session: Session,
    recipe: recipes.Recipe,
    job: Job,
    targets: list[Target],
    out: str | os.PathLike[str] | None,
) -> Run:
    refuse_unwritable(out or Path("build", job.file_name))
    _refuse_settings(recipe, targets)
    forms, rewrites = forms_of(session, recipe, job)
    job = replace(job, variant=forms[-1].variant)
    original, graph = forms[0].graph, forms[-1].graph
    _refuse_unsupported(graph, targets)
    job = with_class_names(job, recipe, graph)
    mixed.refuse(recipe, targets, given=is_given(graph))
    given = _taken_off(session, job, graph)
    if given is not None and recipe.qat is not None:
        raise UsageError(f"[qat] {job.name}: holds quantized weights already: a float model")
    task = task_of(recipe, job, original)
    reference = answered(session, job, task, original)
    for form in forms[1:]:
        form.changed = variant_drift(session, job, task, form, reference)

    def unrounded(kind: str, plain: recipes.Recipe) -> Quantized:
        return _quantized(session, plain, job, graph, kind, "unrounded")

    own = mixed.chosen(session, recipe, job, graph, targets, unrounded)
    kinds = dict.fromkeys(t.activations for t in targets if t.quantized and t.name not in own)
    quantized = {kind: given or _quantized(session, recipe, job, graph, kind) for kind in kinds}
    if recipe.qat is not None:
        if own:
            raise UsageError("[qat] with modules kept in float: one of the two")
        told = qat.Asked(session, recipe, job, task, original, graph, reference, targets)
        quantized["int8"] = qat.trained(
            told, quantized["int8"], lambda q, t: _lowered(session, recipe, job, graph, q, t, "of training")
        )
    built = [
        _lowered(session, recipe, job, graph, own.get(t.name) or quantized.get(t.activations), t)
        for t in targets
    ]
    baselines = _baselines(session, recipe, job, graph, built)
    if recipe.device.profile != OFF:
        _build_to_time(session, recipe, job, forms, targets)
        if len(forms) > 1:
            predict(forms, targets, recipe.device.threads, session.store.root / "cost")
    asked = proofs.Asked(session, recipe, job, task, reference, baselines, forms)
    for proof in proofs.PROOFS:
        proof.prove(asked, built)
    together = agreed(asked, built)
    with session.step("report"):
        facts = Facts(recipe, job, graph, forms, rewrites, task, reference, built, baselines, together)
        return evidence.write(facts, session.stages, out or Path("build", job.file_name))


def _refuse_settings(recipe: recipes.Recipe, targets: list[Target]) -> None:
    """Say what cannot run here, or does not go together, before anything is done."""
    for target in targets:
        runtime_of(target)
    mixed.refuse(recipe, targets)
    asked = recipe.quantize.quantizer
    if recipe.qat is not None and not any(t.activations == "int8" for t in targets):
        raise UsageError("[qat] trains int8 targets: none of those is built")
    if recipe.qat is not None and recipe.mixed is not None:
        raise UsageError("[qat] with [mixed]: one of the two")
    others = [t.name for t in targets if t.quantized and asked not in t.quantizers]
    if others:
        takes = ", ".join(t.name for t in TARGETS.values() if asked in t.quantizers)
        raise UsageError(f"[quantize] {asked} cannot quantize {', '.join(others)}: {takes} alone")


def _refuse_unsupported(graph: Graph, targets: list[Target]) -> None:
    """Say what cannot be lowered before minutes are spent on quantizing."""
    lines = [f"{t.name}: {line}" for t in targets for line in lowering_of(t).unsupported(graph, t)]
    if lines:
        raise UnsupportedError("; ".join(dict.fromkeys(lines)))


def _taken_off(session: Session, job: Job, graph: Graph) -> Quantized | None:
    """The scales a quantized file brought along, taken off the graph, which is the float reference then."""
    if not is_given(graph):
        return None
    with session.step("complete"):
        if isinstance(job.variant.module, QuantizedModule):  # complete, and by the rules of here
            annotated = graph.copy()
        else:
            annotated = complete(graph, lambda: calibration_rows(job.calibration.images))
    for value in graph.values():
        value.quant = None
    return Quantized(annotated, None, None)


def _quantized(
    session: Session, recipe: recipes.Recipe, job: Job, graph: Graph, activations: str, label: str = ""
) -> Quantized:
    asked = recipe.quantize
    settings = QuantizeSettings(
        profile=asked.profile,
        activations="int16" if activations == "int16" else "int8",
        calibration=recipe.data.calibration,
        ranges=asked.ranges,
        equalize=asked.equalize,
        weight_mse=asked.weight_mse,
        gptq=asked.gptq,
        bias_correction=asked.bias_correction,
    )

    def make(directory: Path, _line: Line) -> None:
        images = job.calibration.images
        result = quantize(graph, calibration_rows(images), settings)
        save(result.graph, directory / "graph.safetensors")
        save_file({**result.means, _ORDER: result.order}, directory / _MEANS)
        about = {"name": images.name, "n": len(images), "sha256": images.sha256}
        (directory / "quantize.json").write_text(json.dumps({"calibration": about, **result.report}))

    key = {
        "graph": graph_hash(graph),
        "images": job.calibration.identity,
        "settings": repr(settings),
        "threads": torch.get_num_threads(),  # the order of float sums
        "versions": versions(),
    }
    kind = "" if activations == "int8" else activations
    directory = session.stage("quantize", key, make, f"{label} {kind}".strip())
    about = json.loads((directory / "quantize.json").read_text())
    return Quantized(load(directory / "graph.safetensors"), about, directory / _MEANS)


def _build_to_time(
    session: Session, recipe: recipes.Recipe, job: Job, forms: list[Form], targets: list[Target]
) -> None:
    """Artifacts of the forms that came before the one that is built, for their milliseconds.

    What a file's operators take does not depend on its scales, so a few images and the fast profile do.
    A form whose layers are those of a later one takes what that one takes.
    """
    quick = replace(recipe, quantize=recipes.Quantize(profile="fast"))
    few = replace(job, calibration=_few(job.calibration))
    for form in untimed_forms(forms):
        if is_given(form.graph):
            form.untimed = {t.name: "a file with scales of its own" for t in targets}
            continue
        refused = {t.name: lowering_of(t).unsupported(form.graph, t) for t in targets}
        form.untimed = {name: "; ".join(lines) for name, lines in refused.items() if lines}
        able = [t for t in targets if not refused[t.name] and RUNTIMES[t.runtime].host]
        label = form.variant.step
        kinds = dict.fromkeys(t.activations for t in able if t.quantized)
        quantized = {kind: _quantized(session, quick, few, form.graph, kind, label) for kind in kinds}
        built = [
            _lowered(session, quick, few, form.graph, quantized.get(t.activations), t, label) for t in able
        ]
        form.timed = {one.target.name: one for one in built}
        form.timed |= _baselines(session, quick, few, form.graph, built, label)


def _few(given: Source | Given) -> Source | Given:
    if isinstance(given, Given):
        return Given(given.first(_TIMED_IMAGES))
    return replace(given, count=min(given.count, _TIMED_IMAGES))


def _lowered(
    session: Session,
    recipe: recipes.Recipe,
    job: Job,
    graph: Graph,
    quantized: Quantized | None,
    target: Target,
    label: str = "",
) -> Built:
    source = quantized.graph if quantized is not None else graph
    io = _io(recipe, target)
    options: dict[str, Any] = {"io_dtype": io}
    if recipe.target.dynamic_batch and target.open_batch:
        options["dynamic_batch"] = True
    lowering = lowering_of(target)
    prepared = lowering.prepare(source, target, io)
    if quantized is not None and quantized.means is not None and target.mixed:
        prepared = _refitted(session, job, prepared, quantized.means, target)
    quantizer = recipe.quantize.quantizer if recipe.quantize.quantizer in target.quantizers else OWN

    def make(directory: Path, _line: Line) -> None:
        if quantizer != OWN:
            batches = job.calibration.images.input_batches(_BATCH)
            images = (list(row) for batch in batches for row in zip(*batch, strict=True))
            lowered = quantize_with_nncf(graph, target, images)
        else:
            lowered = lowering.lower(prepared, target, **options)
        for name, data in lowered.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        ops = lowered.operators
        content = {
            "files": list(lowered.files),
            "tensors": lowered.tensors,
            "ports": lowered.ports.as_dict(),
            "modules": module_names(ops),
            "nodes": [op.node_index for op in ops],
        }
        (directory / "lowered.json").write_text(json.dumps(content))

    key = {"graph": graph_hash(prepared), "target": repr(target), **options}
    if quantizer != OWN:
        key |= {"quantizer": quantizer, "images": job.calibration.identity, "float": graph_hash(graph)}
    directory = session.stage("lower", key, make, f"{label} {target.name}".strip())
    about = json.loads((directory / "lowered.json").read_text())
    files = {name: directory / name for name in about["files"]}
    return Built(
        target=target,
        files=files,
        sha256s={name: sha256_file(path) for name, path in files.items()},
        prepared=prepared,
        tensors=about["tensors"],
        ports=Ports.from_dict(about["ports"]),
        modules=about["modules"],
        nodes=about["nodes"],
        io=io,
        quantization=quantized.report if quantized and quantizer == OWN else None,
        quantizer=quantizer,
    )


def _refitted(session: Session, job: Job, prepared: Graph, means: Path, target: Target) -> Graph:
    """The graph with biases for what this target leaves in float; scales and integer weights are kept."""

    def make(directory: Path, _line: Line) -> None:
        rows = load_file(means)
        order = rows.pop(_ORDER)
        chosen = [source[order] for source in calibration_rows(job.calibration.images)]
        fit_biases(prepared, chosen, rows)
        save(prepared, directory / "graph.safetensors")

    key = {
        "graph": graph_hash(prepared),
        "means": sha256_file(means),
        "images": job.calibration.identity,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    return load(session.stage("biases", key, make, target.name) / "graph.safetensors")


def _baselines(
    session: Session, recipe: recipes.Recipe, job: Job, graph: Graph, built: list[Built], label: str = ""
) -> dict[str, Built]:
    """The float models that `built` are held against, by target: those asked for, the rest made here."""
    asked = {one.target.name: one for one in built}
    names = dict.fromkeys(one.target.baseline for one in built)
    return {
        name: asked.get(name) or _lowered(session, recipe, job, graph, None, get_target(name), label)
        for name in names
    }


def _io(recipe: recipes.Recipe, target: Target) -> str | None:
    """The recipe's I/O dtype where the target takes it; asking for one that no target takes is an error."""
    return recipe.target.io if recipe.target.io in target.io_dtypes else None
