"""Pruning by edgekit, uniform, random and by Torch-Pruning: the same milliseconds, the same recovery.

    python -m venv .tp
    .tp/bin/pip install torch-pruning torch torchvision timm safetensors
    python benchmarks/pruning_peers.py --tp-python .tp/bin/python

A cell is a checkpoint of the hard set and a budget: `mobilenet_v2:latency=0.65` of its measured int8
milliseconds, `resnet18:macs=0.5`. Every method is brought to the same measured milliseconds (the ratio of
medians to the unpruned in the same run), then trained by the same loop, settings and pictures with the
unpruned as teacher, for as many steps as --minutes of the processor came to for edgekit's, then quantized as
a build does it, and judged on all evaluation pictures; p is McNemar's, exact, of the int8 answers against
edgekit's. What fails stands in the table.

Writes pruning_peers.md and pruning_peers.json into --out after every finished step. All of it is kept in
--work: the same command goes on where it stopped, in the middle of a training too. --quiet COMMAND runs what
is timed while COMMAND keeps the machine quiet; --stage forms makes and times the forms without training any,
--stage page writes what is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import bars
import measure
import numpy as np
import peers
import pruned_forms as forms
import seeded
import torch
from pruned_forms import FLOAT, INT8, Checkpoint, Clock, Form

from edgekit.cost.static import count
from edgekit.data import open_images
from edgekit.data.preprocessing import Preprocessing
from edgekit.errors import EdgekitError
from edgekit.graph.file import load, save
from edgekit.graph.ir import Graph
from edgekit.graph.module import as_module
from edgekit.runtimes.runtime import run_model
from edgekit.tasks.statistics import drop_interval, mcnemar_p
from edgekit.train import Settings, run_training
from edgekit.train.data import EmbeddedData, Grade
from edgekit.train.reference import REFERENCE_DIR

CELLS = ("mobilenet_v2:latency=0.65", "resnet18:macs=0.5", "mobilenet_v3_large:latency=0.7")
METHODS = ("edgekit", "uniform", "torch-pruning", "torch-pruning taylor", "random", "edgekit, not fitted")
FIRST = METHODS[0]
EVALUATION = 4000
POOL = 8000  # training pictures
# model: (budget, points lost at most, int8 latency ratio at most)
BARS = {
    "mobilenet_v2": ("latency", 1.5, 0.65),
    "mobilenet_v3_large": ("latency", 1.5, 0.7),
    "resnet18": ("macs", 1.0, 0.62),
}
AHEAD, SIGNIFICANT = 1.0, 0.01


class Cell:
    """One checkpoint under one budget; what is made of it lies in `work`."""

    def __init__(self, spec: str, options: argparse.Namespace) -> None:
        self.spec, self.options = spec, options
        self.model, _, budget = spec.partition(":")
        self.budget, _, share = budget.partition("=")
        self.share = float(share)
        self.work = options.work / "pruning" / spec.replace(":", "-")
        self.work.mkdir(parents=True, exist_ok=True)
        self.checkpoint = Checkpoint(self.model, options.reference, options.calibration)
        self.clock = Clock(self.checkpoint, self.work, options.quiet)

    # forms
    def form(self, method: str) -> Form:
        """As it was kept, or made now and kept. Raises: BuildFailure, EdgekitError."""
        folder = self.folder(method)
        graph, record = folder / "form.safetensors", folder / "form.json"
        if not record.exists():
            measure.tell(f"{self.spec}: {method}: form")
            made = self._makers()[method]()
            save(made.graph, graph)
            kept = {
                "predicted_ms": made.predicted_ms,
                "measured_ms": made.measured_ms,
                "record": made.record,
            }
            seeded.write_atomic(record, lambda path: path.write_text(json.dumps(kept, default=float)))
        kept = json.loads(record.read_text())
        return Form(load(graph), kept["predicted_ms"], kept["measured_ms"], kept["record"])

    def _makers(self) -> dict[str, Callable[[], Form]]:
        clock, python = self.clock, self.options.tp_python
        found: dict[str, Callable[[], Form]] = {
            "edgekit": lambda: forms.ours(clock, self._asked()),
            "edgekit, not fitted": lambda: forms.ours(clock, self._asked(), refit=False),
            "uniform": lambda: forms.uniform(clock, self.target_ms()),
            "random": lambda: forms.random(clock, self.form("edgekit")),
        }
        for method, importance in (("torch-pruning", "magnitude"), ("torch-pruning taylor", "taylor")):
            found[method] = partial(self._torch_pruning, python, importance)
        return found

    def _torch_pruning(self, python: str, importance: str) -> Form:
        return forms.torch_pruning(self.clock, self.target_ms(), python, importance)

    def _asked(self) -> dict[str, float]:
        if self.budget == "latency":
            return {"latency_ms": self.target_ms()}
        return {self.budget: self.share}

    def target_ms(self) -> float:
        """A share of the original's milliseconds; of another budget what edgekit's form takes."""
        if self.budget == "latency":
            return self.share * self.clock.measured_ms(self.checkpoint.graph)
        return self.form("edgekit").measured_ms

    def folder(self, method: str) -> Path:
        found = self.work / method.replace(", ", "-").replace(" ", "-")
        found.mkdir(exist_ok=True)
        return found

    # recovery
    def trained(self, method: str) -> Graph:
        """The form after its recovery."""
        folder = self.folder(method)
        result, record = folder / "trained.safetensors", folder / "trained.json"
        if not record.exists():
            measure.tell(f"{self.spec}: {method}: {self.options.minutes:g} minutes of recovery")
            module = as_module(self.form(method).graph)
            teacher = as_module(self.checkpoint.graph).eval()
            settings = self.settings
            if method != FIRST:
                settings = replace(settings, minutes=None, steps=self.steps())
            done = run_training(module, self.data, settings, teacher=teacher, directory=folder)
            save(module.to_graph(), result)
            seeded.write_atomic(record, lambda path: path.write_text(json.dumps(done, default=str)))
        return load(result)

    def steps(self) -> int:
        """What the minutes came to for edgekit's form: the others see as many pictures, whatever the load."""
        self.trained(FIRST)
        return int(json.loads((self.folder(FIRST) / "trained.json").read_text())["steps"])

    @property
    def settings(self) -> Settings:
        chosen = json.loads(self.options.recovery) if self.options.recovery else {}
        return Settings(minutes=self.options.minutes, threads=1, **{**RECOVERY, **chosen})

    @property
    def data(self) -> EmbeddedData:
        row = self.checkpoint.row
        mean, std = tuple(row["mean"]), tuple(row["std"])
        cache = self.options.work / "pictures"
        side = row["resolution"]
        smaller = {size: Grade(POOL, zoom=side / size) for _, size, _ in self.settings.stages if size}
        return EmbeddedData(row["data"], side, mean, std, smaller, POOL, cache=cache)

    # judgement
    @cached_property
    def evaluation(self) -> Any:
        row = self.checkpoint.row
        side = row["resolution"]
        like = Preprocessing(side, side, row["interpolation"], tuple(row["mean"]), tuple(row["std"]))
        return open_images(row["data"], "evaluation", self.options.images, like)

    def right(self, folder: Path, stage: str, target: str, graph: Callable[[], Graph]) -> np.ndarray:
        """Which evaluation pictures a target's file of a graph names rightly, (N,); the file is kept."""
        kept = folder / f"{stage}-{target}.npy"
        if not kept.exists():
            images = self.checkpoint.fit[0][: self.options.ranges]
            path = kept.with_suffix(".tflite")
            path.write_bytes(forms.file_of(graph(), target, images))
            named = [run_model(path, batch)[0].argmax(1) for batch in self.evaluation.batches(100)]
            seeded.save_array(kept, np.concatenate(named) == self.evaluation.labels)
        found: np.ndarray = np.load(kept)
        return found

    def judged(self, method: str) -> dict[str, Any]:
        """A method's row so far: its form, and once it was trained what it answers."""
        folder = self.folder(method)
        form = self.form(method)
        macs, params = count(form.graph).macs, count(form.graph).params
        row: dict[str, Any] = {
            "method": method,
            "predicted_ms": form.predicted_ms,
            "measured_ms": form.measured_ms,
            "macs": macs,
            "params": params,
            "record": {k: v for k, v in form.record.items() if k not in ("closed", "refitted")},
            "before": float(self.right(folder, "form", INT8, lambda: form.graph).mean()),
        }
        if (folder / "trained.json").exists():
            row["training"] = json.loads((folder / "trained.json").read_text())
            for target in (FLOAT, INT8):
                row[target] = float(
                    self.right(folder, "trained", target, lambda: self.trained(method)).mean()
                )
        return row

    def original(self) -> dict[str, Any]:
        folder = self.folder("original")
        counts = count(self.checkpoint.graph)
        row: dict[str, Any] = {"method": "original", "macs": counts.macs, "params": counts.params}
        row["measured_ms"] = self.clock.measured_ms(self.checkpoint.graph)
        for target in (FLOAT, INT8):
            found = self.right(folder, "trained", target, lambda: self.checkpoint.graph)
            row[target] = float(found.mean())
        return row

    def compared(self, rows: list[dict[str, Any]], base: str) -> None:
        """To every trained row the paired difference of its int8 answers to those of `base`."""
        ours = np.load(self.folder(base) / f"trained-{INT8}.npy")
        for row in rows:
            if INT8 in row and row["method"] != base:
                theirs = np.load(self.folder(row["method"]) / f"trained-{INT8}.npy")
                lost, gained = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
                row[f"against {base}"] = {
                    "points": 100.0 * (float(ours.mean()) - float(theirs.mean())),
                    "interval": drop_interval(len(ours), lost, gained),
                    "p": mcnemar_p(lost, gained),
                }

    def timed(self, rows: list[dict[str, Any]]) -> None:
        """The final int8 files in turns in one run; kept as long as they are the same files."""
        names = [row["method"] for row in rows if INT8 in row]
        if len(names) < 2:
            return
        paths = {name: self.folder(name) / f"trained-{INT8}.tflite" for name in names}
        kept = self.work / f"times-{seeded.content_key(*paths.values())}.json"
        if not kept.exists():
            files = {name: path.read_bytes() for name, path in paths.items()}
            times = self.clock.ratios(files, "original")
            seeded.write_atomic(kept, lambda path: path.write_text(json.dumps(times)))
        times = json.loads(kept.read_text())
        for row in rows:
            row["latency"] = times.get(row["method"])

    def result(self) -> dict[str, Any]:
        """The cell as it stands."""
        rows, failures = [self.original()], {}
        for method in self.options.methods:
            folder = self.folder(method)
            if (folder / "failed.txt").exists():
                failures[method] = (folder / "failed.txt").read_text()
            elif (folder / "form.json").exists():
                rows.append(self.judged(method))
        self.compared(rows, "original")
        if any(row["method"] == "edgekit" and INT8 in row for row in rows):
            self.compared(rows, "edgekit")
        if self.options.stage in ("all", "page"):
            self.timed(rows)
        return {"cell": self.spec, "rows": rows, "failures": failures, "settings": self.settings.to_dict()}


# The only setting that was tried, on edgekit's form and training pictures held out: it is tuned for nobody.
RECOVERY: dict[str, Any] = {"batch": 16, "optimizer": "muon", "rate": 5e-4, "warmup": 0.1, "ema": 60}


def checks(cell: dict[str, Any]) -> list[bars.Check]:
    """A cell against its bars."""
    spec = cell["cell"]
    model = spec.partition(":")[0]
    rows = {row["method"]: row for row in cell["rows"]}
    if model not in BARS or INT8 not in rows.get("edgekit", {}):
        return []
    _, points, ratio = BARS[model]
    own, found = rows["edgekit"], list[bars.Check]()
    for target in (FLOAT, INT8):
        lost = 100.0 * (rows["original"][target] - own[target])
        found.append(bars.Check(spec, f"{target}: points lost", lost, "<=", points))
    if own.get("latency"):
        found.append(bars.Check(spec, "int8 latency ratio", own["latency"]["ratio"][0], "<=", ratio * 1.03))
    for method in ("uniform", "torch-pruning", "torch-pruning taylor"):
        if against := rows.get(method, {}).get("against edgekit"):
            found.append(bars.Check(spec, f"points above {method}", against["points"], ">=", AHEAD))
            found.append(bars.Check(spec, f"p against {method}", against["p"], "<=", SIGNIFICANT))
    return found


def markdown(cells: list[dict[str, Any]], found: list[bars.Check], facts: dict[str, Any], about: str) -> str:
    head = ("method", "int8 time", "MACs", "parameters", "int8 untrained", "minutes", "float", "int8", "lost")
    head += ("edgekit is better by", "p")
    parts = ["# Pruning: edgekit, uniform width, random channels, Torch-Pruning", about]
    for cell in cells:
        first = cell["rows"][0]

        def line(row: dict[str, Any], first: dict[str, Any] = first) -> tuple[str, ...]:
            def percent(key: str) -> str:
                return f"{100 * row[key]:.2f}" if key in row else "-"

            ratio = row["latency"]["ratio"][0] if row.get("latency") else None
            ratio = row["measured_ms"] / first["measured_ms"] if ratio is None else ratio
            lost = f"{100 * (first[INT8] - row[INT8]):+.2f}" if INT8 in row else "-"
            against = row.get("against edgekit") if row["method"] != "original" else None
            return (
                *(row["method"], f"{ratio:.3f}"),
                *(f"{row[key] / first[key]:.3f}" for key in ("macs", "params")),
                percent("before"),
                f"{row['training']['seconds'] / 60:.1f}" if "training" in row else "-",
                *(percent(FLOAT), percent(INT8), lost),
                f"{against['points']:+.2f}" if against else "-",
                f"{against['p']:.1e}" if against else "-",
            )

        parts += [f"## {cell['cell']}", bars.table(head, [line(row) for row in cell["rows"]])]
        parts += [f"{method}: failed: {why}" for method, why in cell["failures"].items()]
    return "\n\n".join([*parts, "Bars:", bars.check_table(found), measure.footer(facts)]) + "\n"


def write(cells: list[Cell], options: argparse.Namespace, facts: dict[str, Any]) -> None:
    done = [cell.result() for cell in cells if (cell.folder("edgekit") / "form.json").exists()]
    found = [check for cell in done for check in checks(cell)]
    about = (
        f"Checkpoints of the hard set at their own resolution, {options.images} evaluation pictures, one "
        f"thread. Recovery: as many steps as {options.minutes:g} processor minutes were planned to be for "
        "edgekit's form, the same for all, with the unpruned as teacher beside the labels; `minutes` is what "
        "they took beside whatever else ran. `int8 time`: p50 over the unpruned's in one run. `int8 "
        "untrained`: before that recovery. `lost`: int8 points of the unpruned's int8. One setting of the "
        "recovery was tried, with edgekit's form alone; no other method's was looked for. Where nothing is "
        "fitted, 2.50 means that one class of forty is named for every picture. `-`: not run."
    )
    measure.write_results(
        options.out, "pruning_peers", facts, done, found, markdown(done, found, facts, about)
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tp-python", default="", help="python of the environment that holds Torch-Pruning")
    parser.add_argument("--minutes", type=float, default=8.0, help="recovery, of the processor, a model")
    parser.add_argument("--recovery", default="", help="JSON of further edgekit.train.Settings")
    parser.add_argument("--stage", choices=("forms", "train", "all", "page"), default="all")
    parser.add_argument("--quiet", default="", help="a command that runs another while the machine is quiet")
    parser.add_argument("--calibration", type=int, default=256, help="pictures for scores and fits")
    parser.add_argument("--ranges", type=int, default=128, help="of them, for int8 ranges")
    parser.add_argument("--images", type=int, default=EVALUATION, help="evaluation pictures")
    parser.add_argument("--reference", type=Path, default=REFERENCE_DIR / "hard")
    parser.add_argument("--work", type=Path, default=measure.WORK)
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    facts = measure.provenance()
    asked = ["--minutes", f"{options.minutes:g}", "--cells", *options.cells, "--tp-python", ".tp/bin/python"]
    facts["command"] = shlex.join(["python", "benchmarks/pruning_peers.py", *asked])
    cells = [Cell(spec, options) for spec in options.cells]
    for cell in cells if options.stage != "page" else ():
        for method in options.methods:
            failed = cell.folder(method) / "failed.txt"
            if failed.exists():
                continue
            try:
                cell.form(method) if options.stage == "forms" else cell.trained(method)
            except (peers.BuildFailure, EdgekitError) as failure:
                measure.tell(f"{cell.spec}: {method}: {failure}")
                failed.write_text(str(failure))
            if options.stage == "all":
                write(cells, options, facts)
    if options.stage in ("forms", "page"):
        write(cells, options, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
