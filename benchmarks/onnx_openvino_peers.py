"""edgekit's ONNX and OpenVINO files beside those of onnxruntime's quantize_static and of NNCF.

    pip install 'edgekit[openvino,dev]' onnxscript
    python benchmarks/onnx_openvino_peers.py

(onnxscript is what torch.onnx.export(dynamo=True) needs.) Stages, each of which keeps its rows in --work, so
that a run that was interrupted goes on where it stopped, and --stages runs some of them:

    build     files of the seeded networks (see seeded.py) and of the reference checkpoints, every tool with
              the same calibration images (see runtimes_build.py)
    latency   all files of a seeded network in turns in each of six fresh processes; OpenVINO computes in
              float32 and pins no thread, and once more in the precision it takes by itself, to compare with
    quality   SQNR and top-1 agreement with PyTorch's float logits; for the checkpoints, on the embedded set,
              also what TFLite, ONNX Runtime and OpenVINO answer alike
    export    seconds of an ONNX export beside torch.onnx.export, in fresh processes in turns
    table     onnx_openvino_peers.md and .json in --out, with bars; what was not measured is named

A run of all stages that finished drops its rows, so that the next one measures anew; files are kept by what
they were made from.

Run it on an idle machine. It ends with 2 when a network could not be built or measured. --quick is for
plumbing: few samples and images, edgekit's fast profile.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bars
import export_time
import measure
import numpy as np
import peers
import runtimes_build
import runtimes_table
import seeded

from edgekit import zoo
from edgekit.device.host import Latency
from edgekit.device.profiles import QUICK
from edgekit.errors import EdgekitError
from edgekit.pipeline.timing import latency
from edgekit.report.compare import speeds
from edgekit.runtimes.runtime import settings
from edgekit.verify.agreement import agreement

STAGES = ("build", "latency", "quality", "export", "table")
CALIBRATION_SEED, EVALUATION_SEED = 7, 11
TARGETS = ("onnx-float32", "onnx-int8", "openvino-float16", "openvino-int8")
TOGETHER = ("tflite-int8", "onnx-int8", "openvino-int8")
PEERS = ("quantize_static", "nncf")
INT8 = (("onnx-int8", "quantize_static"), ("openvino-int8", "nncf"))
BATCH = 50
PACKAGES = ("onnxruntime", "openvino", "nncf", "onnx", "onnxscript", "ai-edge-litert")


class Peers:
    """One run: its options, and the rows it keeps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seeded = [name for name in seeded.MODELS if name in options.models]
        self.trained = [name for name in bars.ACCURACY if name in options.models]
        self.kept = measure.Unfinished(
            options.work,
            "onnx_openvino_peers",
            measure.settings(options, "stages"),
            peers.edgekit_sources(),
            seeded.content_key(*sources()),
        )
        self.broken: list[str] = []

    def measure(self, stage: str, names: list[str], make: Callable[[str], dict[str, Any]]) -> None:
        """Keep a row for each name. A network that fails does not keep the others from being measured."""
        for i, name in enumerate(names):
            measure.tell(f"{stage} {name} ({i + 1}/{len(names)})")
            try:
                self.kept.row(row_name(stage, name), functools.partial(make, name))
            except (peers.BuildFailure, EdgekitError) as failure:
                measure.tell(f"  failed: {failure}")
                self.broken.append(f"{stage} {name}: {failure}")

    def held(self, stage: str, names: list[str]) -> list[dict[str, Any]]:
        """The rows of a stage that are there."""
        rows = (self.kept.get(row_name(stage, name)) for name in names)
        return [row for row in rows if row is not None]

    def run(self) -> int:
        wanted = self.options.stages
        exported = [name for name in self.seeded if name == bars.EXPORT_MODEL]
        if "build" in wanted:
            self.measure("build seeded", self.seeded, self.built_seeded)
            self.measure("build reference", self.trained, self.built_trained)
        if "latency" in wanted:
            self.measure("latency", self.seeded, self.latency)
        if "quality" in wanted:
            self.measure("quality seeded", self.seeded, self.seeded_quality)
            self.measure("quality reference", self.trained, self.trained_quality)
        if "export" in wanted:
            self.measure("export", exported, self.export)
        if "table" not in wanted:
            return 2 if self.broken else 0
        rows = {
            "build": self.held("build seeded", self.seeded) + self.held("build reference", self.trained),
            "latency": self.held("latency", self.seeded),
            "quality": self.held("quality seeded", self.seeded)
            + self.held("quality reference", self.trained),
            "export": self.held("export", exported),
        }
        both = len(self.seeded) + len(self.trained)
        due = {"build": both, "latency": len(self.seeded), "quality": both, "export": len(exported)}
        missing = [
            f"{stage} ({n - len(rows[stage])} of {n})" for stage, n in due.items() if len(rows[stage]) < n
        ]
        checks = [
            *bars.runtime_latency_checks(rows["latency"]),
            *bars.runtime_quality_checks(rows["quality"]),
            *bars.export_checks(next(iter(rows["export"]), None)),
        ]
        facts = measure.provenance(packages=PACKAGES)
        text = runtimes_table.markdown(rows, checks, facts, self.options, missing)
        measure.write_results(self.options.out, "onnx_openvino_peers", facts, rows, checks, text)
        for line in self.broken:
            print(line, file=sys.stderr)
        if not missing and set(wanted) == set(STAGES):
            self.kept.clear()
        return 2 if self.broken else 0

    def build(self, job: dict[str, Any]) -> Path:
        job = job | {"profile": "fast" if self.options.quick else "thorough"}
        version = runtimes_build.VERSION, peers.edgekit_sources()
        builder = peers.HERE / "runtimes_build.py"
        return peers.kept(sys.executable, builder, job, self.options.work / "runtimes", version)[0]

    def seeded_files(self, name: str) -> Path:
        folder = self.options.work / "seeded"
        return self.build(
            {
                "source": "torchvision",
                "name": name,
                "num_classes": 1000,
                "weights": seeded.seeded_weights(name, folder),
                "calibration": seeded.seeded_images(self.options.calibration, CALIBRATION_SEED, folder),
                "targets": TARGETS,
            }
        )

    def trained_files(self, model: zoo.Model, name: str) -> Path:
        """Weights and images become files that are named by the model, for `kept` to judge by content."""
        folder = self.options.work / "reference"
        folder.mkdir(parents=True, exist_ok=True)
        weights, calibration = folder / f"{name}.safetensors", folder / f"{name}.npy"
        seeded.write_atomic(weights, lambda path: seeded.save_state(model.module, path))
        held = measure.stored_images(
            "calibration", self.options.calibration, model.preprocessing, self.options.work
        )
        seeded.save_array(calibration, np.concatenate(list(held.batches(BATCH))))
        assert model.class_names is not None
        try:
            return self.build(
                {
                    "source": model.source,
                    "name": name,
                    "num_classes": len(model.class_names),
                    "weights": weights,
                    "calibration": calibration,
                    "targets": (*TARGETS, "tflite-int8"),
                }
            )
        finally:
            weights.unlink()
            calibration.unlink()  # large, and rewritten in no time

    def built_seeded(self, name: str) -> dict[str, Any]:
        return {"model": name, "weights": "seeded"} | record(self.seeded_files(name))

    def built_trained(self, name: str) -> dict[str, Any]:
        files = self.trained_files(zoo.resolve(name, "reference"), name)
        return {"model": name, "weights": "trained"} | record(files)

    def latency(self, name: str) -> dict[str, Any]:
        """Medians and ratios of all files of a seeded network, taken in turns."""
        paths = file_paths(self.seeded_files(name), (*TARGETS, *PEERS))
        own = default_precision()
        paths["openvino default"] = paths["openvino-float16"]
        profile = (
            QUICK
            if self.options.quick
            else replace(measure.LATENCY_PROFILE, processes=self.options.processes)
        )
        timed = latency(
            paths, profile=profile, properties={"openvino default": {"INFERENCE_PRECISION_HINT": own}}
        )
        ratios = {
            "onnx_peer": timed.ratio("onnx-int8", "quantize_static"),
            "onnx_float": timed.ratio("onnx-int8", "onnx-float32"),
            "onnx_peer_float": timed.ratio("quantize_static", "onnx-float32"),
            "openvino_peer": timed.ratio("openvino-int8", "nncf"),
            "openvino_float": timed.ratio("openvino-int8", "openvino-float16"),
            "openvino_default": timed.ratio("openvino-int8", "openvino default"),
        }
        return {
            "model": name,
            "files": {file: timed.as_dict(file) | {"machine": None} for file in paths},
            "ratios": ratios,
            "default_precision": own,
            "slower": said_slower(timed),
            "machine": timed.machine,
            "note": timed.machine["note"],
        }

    def seeded_quality(self, name: str) -> dict[str, Any]:
        folder = self.options.work / "seeded"
        images = np.load(seeded.seeded_images(self.options.images, EVALUATION_SEED, folder))
        module = seeded.load_module("torchvision", name, 1000, seeded.seeded_weights(name, folder))
        reference = measure.eager_logits(module, lambda: np.array_split(images, -(-len(images) // BATCH)))
        paths = file_paths(self.seeded_files(name), (*TARGETS, *PEERS))
        return {"model": name, "weights": "seeded", "pairs": []} | compared(paths, images, reference, None)[0]

    def trained_quality(self, name: str) -> dict[str, Any]:
        model = zoo.resolve(name, "reference")
        held = measure.stored_images(
            "evaluation", self.options.images, model.preprocessing, self.options.work
        )
        reference = measure.eager_logits(model.module, lambda: held.batches(BATCH))
        images = np.concatenate(list(held.batches(BATCH)))
        paths = file_paths(self.trained_files(model, name), (*TARGETS, "tflite-int8", *PEERS))
        row, logits = compared(paths, images, reference, held.labels)
        together = agreement({file: logits[file] for file in TOGETHER})
        return {
            "model": name,
            "weights": "trained",
            "checkpoint": model.weights,
            "pairs": together.as_dict()["pairs"],
        } | row

    def export(self, name: str) -> dict[str, Any]:
        """Fresh processes of both tools in turns; one of each before tells which modules it imports."""
        weights = seeded.seeded_weights(name, self.options.work / "seeded")
        job = {"source": "torchvision", "name": name, "num_classes": 1000, "weights": weights}
        modules = {tool: exported(job, tool, [])["modules"] for tool in export_time.TOOLS}
        runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in export_time.TOOLS}
        for i in range(1 if self.options.quick else self.options.processes):
            measure.tell(f"  export {i + 1}")
            order = list(runs) if i % 2 == 0 else list(runs)[::-1]
            for tool in order:
                run = exported(job, tool, modules[tool])
                runs[tool].append({key: run[key] for key in ("first_s", "warm_s", "late")})
        seconds = {
            tool: {call: statistics.median(run[f"{call}_s"] for run in taken) for call in ("first", "warm")}
            for tool, taken in runs.items()
        }
        ratios = {call: seconds["edgekit"][call] / seconds["torch"][call] for call in ("first", "warm")}
        return {"model": name, "seconds": seconds, "ratios": ratios, "runs": runs}


def row_name(stage: str, name: str) -> str:
    return f"{stage} {name}".replace(" ", "-")


def sources() -> list[Path]:
    """What decides a row besides edgekit itself."""
    names = ("onnx_openvino_peers", "runtimes_build", "export_time", "measure", "seeded")
    return [peers.HERE / f"{name}.py" for name in names]


def file_paths(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    suffix = {"tflite": "tflite", "onnx": "onnx", "quantize_static": "onnx"}
    return {name: folder / name / f"model.{suffix.get(name.split('-')[0], 'xml')}" for name in names}


def record(folder: Path) -> dict[str, Any]:
    """build.json, and the sizes of the files."""
    kinds = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    sizes = {kind.name: sum(file.stat().st_size for file in kind.iterdir()) for kind in kinds}
    return json.loads((folder / "build.json").read_text()) | {"size_bytes": sizes}


def default_precision() -> str:
    """What OpenVINO computes floats in on this CPU when it is told nothing."""
    import openvino

    return str(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name())


def said_slower(timed: Latency) -> list[str]:
    """The sentences that edgekit's report has for int8 files that lose against their own float file."""
    rows = [
        {
            "target": name,
            "artifact": True,
            "precision": name.split("-")[1],
            "runtime": timed.files[name].runtime,
            "settings": timed.files[name].settings,
            "p50_ms": timed.files[name].p50_ms,
            "p90_ms": timed.files[name].p90_ms,
            "p99_ms": timed.files[name].p99_ms,
        }
        for name in TARGETS
    ]
    found = speeds({"runtimes": rows})
    return list(found.slower) if found else []


def compared(
    paths: dict[str, Path], images: np.ndarray, reference: np.ndarray, labels: np.ndarray | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every file's row, what ours have above the peers' with intervals, and the logits."""
    files, logits = {}, {}
    for name, path in paths.items():
        logits[name] = measure.answers(path, lambda: (images,))
        files[name] = measure.drifted(reference, logits[name], labels)
    right = {name: array.argmax(1) == reference.argmax(1) for name, array in logits.items()}
    gains = {f"{mine} {peer}": paired_gain(right[mine], right[peer]) for mine, peer in INT8}
    return {"files": files, "agreement_gain": gains, "images": len(images)}, logits


def paired_gain(mine: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Points by which `mine` is true more often on the same images, and its 95 % interval."""
    apart = 100.0 * (mine.astype(float) - other.astype(float))
    half = 1.96 * float(apart.std(ddof=1)) / len(apart) ** 0.5
    return float(apart.mean()), float(apart.mean()) - half, float(apart.mean()) + half


def exported(job: dict[str, Any], tool: str, modules: list[str]) -> dict[str, Any]:
    """One process of export_time.py."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "export.json")
        asked = job | {"tool": tool, "modules": modules, "out": str(out)}
        log = Path(folder, "export.log")
        peers.fresh_process(sys.executable, peers.HERE / "export_time.py", asked, log)
        return json.loads(out.read_text())


def main(arguments: list[str] | None = None) -> int:
    names = list(dict.fromkeys((*seeded.MODELS, *bars.ACCURACY)))
    parser = measure.parser(
        __doc__ or "",
        models=names,
        about="those of the seeded networks and of the reference checkpoints that have these names",
        quick="few samples and images, one export, fast profile",
        images=500,
        calibration=128,
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument(
        "--processes",
        type=int,
        default=6,
        help="fresh processes a figure rests on; an even number loads each pair both ways",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in names]
    if unknown:
        parser.error(f"--models: {unknown[0]!r} is not measured: {', '.join(names)}")
    if options.quick:
        options.images, options.calibration = min(options.images, 64), min(options.calibration, 32)
    for kind in ("onnx", "openvino"):
        measure.tell(f"{kind}: {settings(kind)}")
    return Peers(options).run()


if __name__ == "__main__":
    sys.exit(main())
