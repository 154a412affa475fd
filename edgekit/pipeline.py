"""The stages in order: read this first.

    resolve    zoo       name -> nn.Module, weights, preprocessing
    capture    capture   nn.Module -> Graph, proven against eager
    optimize   passes    Graph -> Graph
    reference            the float graph's answers on the evaluation images
    quantize   quantize  Graph -> annotated Graph
    lower      lower     Graph -> model file, one a target
    audit      verify    what the file really holds and what runs where
    fidelity   verify    integer simulation against the runtime
    drift      verify    the artifact's answers against the reference's
    latency    verify    fresh processes, float and artifact interleaved
    report     evidence  gates, bundle, report.json, report.html, report.md

Each result is stored under the hash of everything that went into it (`edgekit.session`), so a second build
redoes only what changed, and a killed one resumes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import capture, evidence, passes, zoo
from edgekit import recipe as recipes
from edgekit.data import ImageSet
from edgekit.data.arrays import ArrayImages, array_images
from edgekit.data.source import Given, Source
from edgekit.errors import ArtifactError, DataError, UnsupportedError, UsageError
from edgekit.ir import Graph, load, run
from edgekit.job import Built, Job, Run
from edgekit.lower import tflite
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.report import validate
from edgekit.session import Display, Line, Session
from edgekit.store import Store, sha256_file
from edgekit.targets import Target, get_target
from edgekit.verify.audit import audit, module_names
from edgekit.verify.contact_sheet import contact_sheet
from edgekit.verify.delegation import delegation
from edgekit.verify.drift import Drift, drift
from edgekit.verify.fidelity import (
    Fidelity,
    FloatFidelity,
    OpFidelity,
    fidelity,
    float_fidelity,
    probe_values,
    read_values,
)
from edgekit.verify.latency import FileLatency, Latency, latency, machine
from edgekit.verify.layers import LayerError, layer_errors
from edgekit.verify.runtime import run_tflite, runtime_version

FLOAT_TARGET = "tflite-float32"
_BATCH = 32
_PROBED = 4  # images on which every operator is compared
_FLIPPED = 48  # pictures kept of images whose answer changed
_CHUNK = 256  # evaluation images whose float32 pixels are in memory at a time


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
    targets = [get_target(name) for name in recipe.target.names]
    with _session(cache, use_cache, display) as session:
        with session.step("resolve"):
            job = _resolve(recipe, trust)
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
) -> Run:
    """The body of `edgekit.build`; see there."""
    where = "edgekit.build"
    settings = {**settings, "target": {"names": list(targets), **settings.get("target", {})}}
    if isinstance(model, str):
        if calibration is not None or evaluation is not None:
            raise UsageError(f"{where}: images with a model's name: data={{'source': 'imagefolder:PATH'}}")
        return build(recipes.from_dict({"model": model, **settings}, where), out=out)
    name = type(model).__name__
    recipe = recipes.from_dict({"model": name, "weights": "as given", **settings}, where)
    if calibration is None:
        raise UsageError(f"{where}: no calibration images: float32 (N, C, H, W), preprocessed")
    images = array_images("calibration", calibration)
    judged = None
    if evaluation is not None:
        pair = evaluation if isinstance(evaluation, tuple | list) else (evaluation, None)
        judged = Given(array_images("evaluation", pair[0], pair[1], class_names))
    weights = {"kind": "as given", "source": "the module handed over", "sha256": None, "untrained": False}
    job = Job(
        name=name,
        module=model.eval(),
        example=torch.from_numpy(images.array[:1]),
        weights=weights,
        calibration=Given(images),
        evaluation=judged,
        class_names=tuple(class_names) if class_names else None,
        preprocessing=None,
        identity=None,
    )
    with _session(None, True, None) as session:
        return _build(session, recipe, job, [get_target(t) for t in recipe.target.names], out)


@contextmanager
def _session(
    cache: str | os.PathLike[str] | None, use_cache: bool, display: Display | None
) -> Iterator[Session]:
    if use_cache:
        yield Session(Store(cache), display)
    else:
        with Store.temporary() as store:
            yield Session(store, display)


def _resolve(recipe: recipes.Recipe, trust: bool) -> Job:
    model = zoo.resolve(
        recipe.model, recipe.weights, trust=trust, resolution=recipe.resolution, seed=recipe.seed
    )
    data = recipe.data
    calibration = Source(data.source, "calibration", data.calibration, model.preprocessing)
    example = torch.zeros(model.input_shape)
    if data.source != "embedded":  # a folder that cannot be used is said before minutes of work
        example = torch.from_numpy(next(calibration.images.batches(1)))
        if tuple(example.shape) != model.input_shape:
            raise DataError(f"{data.source}: images of {tuple(example.shape)}: {model.input_shape} is needed")
    known = model.source in ("torchvision", "timm")
    return Job(
        name=model.name,
        module=model.module,
        example=example,
        weights=model.weights,
        calibration=calibration,
        evaluation=Source(data.source, "evaluation", data.evaluation, model.preprocessing),
        class_names=model.class_names,
        preprocessing=model.preprocessing.to_dict(),
        identity={"name": model.name, "source": model.source, "weights": model.weights} if known else None,
    )


def _build(
    session: Session,
    recipe: recipes.Recipe,
    job: Job,
    targets: list[Target],
    out: str | os.PathLike[str] | None,
) -> Run:
    graph = _captured(session, job)
    with session.step("optimize"):
        rewrites = passes.optimize(graph)
    _refuse_unsupported(graph, targets)
    reference = _reference(session, job, graph)
    annotated = quantization = None
    if any(target.quantized for target in targets):
        annotated, quantization = _quantized(session, recipe, job, graph)
    built = [_lowered(session, recipe, graph, annotated, target) for target in targets]
    floats = [one for one in built if one.target.name == FLOAT_TARGET]
    baseline = floats[0] if floats else _lowered(session, recipe, graph, None, get_target(FLOAT_TARGET))
    for one in built:
        _audited(session, one)
        _fidelity(session, recipe, job, one)
        _drift(session, job, one, reference)
    _latency(session, recipe, built, baseline)
    with session.step("report"):
        facts = evidence.Facts(recipe, job, graph, rewrites, reference, quantization, built, baseline)
        return evidence.write(facts, session.stages, out or Path("build", job.file_name))


def _refuse_unsupported(graph: Graph, targets: list[Target]) -> None:
    """Say what cannot be lowered before minutes are spent on quantizing."""
    lines = [f"{t.name}: {line}" for t in targets for line in tflite.unsupported(graph, t)]
    if lines:
        raise UnsupportedError("; ".join(dict.fromkeys(lines)))


def _captured(session: Session, job: Job) -> Graph:
    if job.identity is None:
        with session.step("capture"):
            if (program := getattr(job.module, "exported", None)) is not None:
                return capture.import_program(program, job.name, job.example)
            return capture.capture(job.module, job.example, job.name)

    def make(directory: Path, _line: Line) -> None:
        capture.capture(job.module, job.example, job.name).save(directory / "graph.safetensors")

    key = {"model": job.identity, "input": list(job.example.shape), "versions": evidence.versions()}
    return load(session.stage("capture", key, make) / "graph.safetensors")


def _reference(session: Session, job: Job, graph: Graph) -> Path | None:
    """Directory with the float graph's logits.npy, labels.npy (if any) and images.json."""
    source = job.evaluation
    if source is None:
        return None

    def make(directory: Path, line: Line) -> None:
        images = source.images
        labels = evidence.labels_for(images, job, graph)
        rows = []
        with torch.inference_mode():
            for batch in images.batches(_BATCH):
                x = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
                rows.append(run(graph, [x])[0].flatten(1).numpy())
                line.advance(sum(map(len, rows)), len(images))
        np.save(directory / "logits.npy", np.concatenate(rows))
        if labels is not None:
            np.save(directory / "labels.npy", labels)
        about = {"name": images.name, "n": len(images), "sha256": images.sha256}
        (directory / "images.json").write_text(json.dumps(about))

    return session.stage("reference", {"graph": graph.hash(), "images": source.identity}, make)


def _quantized(
    session: Session, recipe: recipes.Recipe, job: Job, graph: Graph
) -> tuple[Graph, dict[str, Any]]:
    asked = recipe.quantize
    settings = QuantizeSettings(
        profile=asked.profile,
        calibration=recipe.data.calibration,
        ranges=asked.ranges,
        equalize=asked.equalize,
        weight_mse=asked.weight_mse,
        gptq=asked.gptq,
        bias_correction=asked.bias_correction,
        seed=recipe.seed,
    )

    def make(directory: Path, _line: Line) -> None:
        images = job.calibration.images
        array = np.concatenate(list(images.batches(_BATCH)))
        result = quantize(graph, torch.from_numpy(array), settings)
        result.graph.save(directory / "graph.safetensors")
        about = {"name": images.name, "n": len(images), "sha256": images.sha256}
        (directory / "quantize.json").write_text(json.dumps({"calibration": about, **result.report}))

    key = {
        "graph": graph.hash(),
        "images": job.calibration.identity,
        "settings": repr(settings),
        "threads": torch.get_num_threads(),  # the order of float sums
        "versions": evidence.versions(),
    }
    directory = session.stage("quantize", key, make)
    return load(directory / "graph.safetensors"), json.loads((directory / "quantize.json").read_text())


def _lowered(
    session: Session, recipe: recipes.Recipe, graph: Graph, annotated: Graph | None, target: Target
) -> Built:
    source = annotated if target.quantized else graph
    assert source is not None
    io = _io(recipe, target)
    prepared = tflite.prepare(source, target)

    def make(directory: Path, _line: Line) -> None:
        lowered = tflite.lower(prepared, target, io_dtype=io)
        (directory / "model.tflite").write_bytes(lowered.data)
        ops = lowered.operators
        content = {"modules": module_names(ops), "nodes": [op.node_index for op in ops]}
        (directory / "lowered.json").write_text(json.dumps(content))

    key = {"graph": source.hash(), "target": repr(target), "io": io}
    directory = session.stage("lower", key, make, target.name)
    content = json.loads((directory / "lowered.json").read_text())
    file = directory / "model.tflite"
    return Built(target, file, sha256_file(file), prepared, content["modules"], content["nodes"])


def _io(recipe: recipes.Recipe, target: Target) -> str | None:
    """The recipe's I/O dtype where the target takes it; asking for one that no target takes is an error."""
    return recipe.target.io if recipe.target.io in target.io_dtypes else None


def _audited(session: Session, one: Built) -> None:
    with session.step(f"audit {one.target.name}"):
        one.audit = audit(one.file, one.modules)
        one.delegation = delegation(one.file, one.modules)


def _fidelity(session: Session, recipe: recipes.Recipe, job: Job, one: Built) -> None:
    """The integer simulation against the runtime, and which layers cause the error that is left."""
    integer = one.target.activations == "int8"

    def make(directory: Path, _line: Line) -> None:
        images = next(job.calibration.first(_PROBED).batches(_PROBED))
        errors: list[LayerError] = []
        found: Fidelity | FloatFidelity
        if integer:
            io = _io(recipe, one.target)
            exposed = probe_values(one.prepared)
            probe = tflite.lower(one.prepared, one.target, io_dtype=io, outputs_also=exposed)
            actual = read_values(probe, one.prepared, images)
            found = fidelity(one.prepared, probe, images, one.file)
            errors = layer_errors(one.prepared, actual, images)
        else:
            found = float_fidelity(one.prepared, one.file, images)
        content = {"fidelity": asdict(found), "errors": [asdict(row) for row in errors]}
        (directory / "fidelity.json").write_text(json.dumps(content))

    key = {
        "artifact": one.sha256,
        "graph": one.prepared.hash(),
        "images": job.calibration.identity,
        "runtime": runtime_version(),
    }
    directory = session.stage("fidelity", key, make, one.target.name)
    content = json.loads((directory / "fidelity.json").read_text())
    one.errors = [LayerError(**row) for row in content["errors"]]
    if integer:
        layers = tuple(OpFidelity(**row) for row in content["fidelity"].pop("layers"))
        one.fidelity = Fidelity(layers=layers, **content["fidelity"])
    else:
        one.fidelity = FloatFidelity(**content["fidelity"])


def _drift(session: Session, job: Job, one: Built, reference: Path | None) -> None:
    """Sets `one.logits`: the artifact's answers on the evaluation images."""
    source = job.evaluation
    if source is None or reference is None:
        return

    def make(directory: Path, line: Line) -> None:
        images, rows, done = source.images, [], 0
        for batch in images.batches(_CHUNK):
            rows.append(run_tflite(one.file, batch, workers=os.cpu_count() or 1))
            done += len(batch)
            line.advance(done, len(images))
        logits = np.concatenate(rows)
        np.save(directory / "logits.npy", logits)
        _save_flipped(directory, compared(logits), images, job)

    labels = reference / "labels.npy"

    def compared(logits: np.ndarray) -> Drift:
        return drift(np.load(reference / "logits.npy"), logits, np.load(labels) if labels.exists() else None)

    key = {"artifact": one.sha256, "reference": reference.name, "runtime": runtime_version()}
    one.pictures = session.stage("drift", key, make, one.target.name)
    one.drift = compared(np.load(one.pictures / "logits.npy"))


def _save_flipped(directory: Path, found: Drift, images: ImageSet | ArrayImages, job: Job) -> None:
    """The images whose answer changed: one file each, and all on one sheet."""
    flips = found.flipped[:_FLIPPED]
    pictures = {flip.index: images.picture(flip.index) for flip in flips}
    for index, picture in pictures.items():
        picture.save(directory / f"{index}.png")
    arrays = {index: np.asarray(picture) for index, picture in pictures.items()}
    (directory / "sheet.png").write_bytes(contact_sheet(arrays, flips, job.class_names))


def _latency(session: Session, recipe: recipes.Recipe, built: list[Built], baseline: Built) -> None:
    device = recipe.device
    if device.profile == "off":
        return
    files = {one.target.name: one for one in (baseline, *built)}

    def make(directory: Path, line: Line) -> None:
        measured = latency(
            {name: one.file for name, one in files.items()},
            profile=device.profile,
            threads=device.threads,
            progress=line.advance,
        )
        (directory / "latency_samples.json").write_text(measured.samples_json())
        rows = {name: asdict(row) for name, row in measured.files.items()}
        (directory / "latency.json").write_text(json.dumps({"files": rows, "processes": measured.processes}))

    key = {
        "files": {name: one.sha256 for name, one in files.items()},
        "device": repr(device),
        "runtime": runtime_version(),
        "machine": machine()["cpu"],
    }
    directory = session.stage("latency", key, make, device.profile)
    content = json.loads((directory / "latency.json").read_text())
    raw = json.loads((directory / "latency_samples.json").read_text())
    measured = Latency(
        files={name: FileLatency(**row) for name, row in content["files"].items()},
        samples_ns={name: [np.array(r) for r in runs] for name, runs in raw["samples_ns"].items()},
        profile=raw["profile"],
        processes=content["processes"],
        threads=raw["threads"],
        runtime=raw["runtime"],
        machine=raw["machine"],
    )
    for one in files.values():
        one.latency = measured


def inspect(path: Path) -> None:
    """Print what a model file, or every model of a build directory, really is."""
    from edgekit.report.inspect import print_audit

    files = sorted(path.glob("**/model*.tflite")) if path.is_dir() else [path]
    if not files:
        raise ArtifactError(f"{path}: no model.tflite in it: a build directory or a .tflite file")
    for file in files:
        print_audit(audit(file).as_dict(), str(file), delegation=delegation(file).as_dict())


def read_report(directory: Path) -> dict[str, Any]:
    """report.json of a build directory, validated.

    Raises: ArtifactError when there is none; ReportError when it is not one.
    """
    path = directory / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}): the report.json of a build") from error
    validate(content)
    return content


def render(directory: Path) -> dict[str, Any]:
    """Write report.html and report.md again from report.json; returns its content."""
    report = read_report(directory)
    evidence.write_pages(report, directory)
    return report


def reproduce(directory: Path, trust: bool = False, display: Display | None = None) -> dict[str, bool]:
    """Build again from the report's recipe with an empty store.

    Returns: for each target, whether the rebuilt file's sha256 is the report's.
    """
    report = read_report(directory)
    recipe = recipes.from_dict(report["provenance"]["recipe"], str(directory / "report.json"))
    if recipe.weights == "as given":
        raise UsageError(f"{directory}: built from a module in Python: only a named model can be built again")
    recipe = replace(recipe, device=replace(recipe.device, profile="off"))
    with tempfile.TemporaryDirectory(prefix="edgekit-repro-") as out:
        again = build(recipe, out=out, trust=trust, use_cache=False, display=display).report
    return {
        name: again["artifacts"][name]["sha256"] == artifact["sha256"]
        for name, artifact in report["artifacts"].items()
    }
