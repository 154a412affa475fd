"""Mixed precision: error against milliseconds, ours beside greedy steps and one precision for all.

    python benchmarks/mixed.py prepare|units|choose|time|judge|table --work DIR [--models a,b]

in this order; each stage keeps what it made, so that those which time anything (`units`, `time`) can run by
themselves on a quiet machine. MobileNetV3-Large has its reference weights and pictures of the embedded set,
the other networks are seeded, on smooth random pictures. Every row is a file: timed in turns with the int8
and the float file, and judged by what LiteRT answers to evaluation images that nothing was fitted to.

Budgets are multiples of the int8 file's time, and lie between the fastest choice there is and float where
that is faster than int8: on some processors int8 alone is not the fastest file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeded import live_statistics, smooth_images

from edgekit import passes
from edgekit.capture import capture
from edgekit.cost.measure import measure
from edgekit.cost.predict import Cost
from edgekit.data import open_images
from edgekit.device.host import machine
from edgekit.device.inventory import HOST, load_inventory
from edgekit.graph.ir import Graph
from edgekit.lower.tflite import lower, prepare
from edgekit.mixed import noise
from edgekit.mixed.choose import fastest, greedy, solve, uniform
from edgekit.mixed.prices import predicted_ms, priced, units_in_all, units_of_graph
from edgekit.mixed.problem import Problem, problem
from edgekit.mixed.refit import Base, answers_of, finished, quick, simulated
from edgekit.mixed.search import factors_of
from edgekit.pipeline.mixed import measured_ms
from edgekit.quantize import QuantizeSettings, quantize, sqnr_db
from edgekit.quantize.images import Images
from edgekit.quantize.precision import DYNAMIC, FLOAT, INT8, assign, choices
from edgekit.runtimes.runtime import run_model
from edgekit.targets import get_target
from edgekit.zoo import resolve

MODELS = ("mobilenet_v3_large", "efficientnet_b0", "deit_tiny_patch16_224", "mobilevit_xxs")
TRAINED = ("mobilenet_v3_large",)
BUDGETS = (1.06, 1.12, 1.25)
CALIBRATION, EVALUATION, NOISE_IMAGES, HELD = 96, 400, 16, 32
RESULT = Path(__file__).parent / "results" / "mixed"
TARGET = get_target("tflite-int8")
Row = dict[str, Any]


def pictures(name: str, count: int, split: str) -> torch.Tensor:
    """Inputs (N, 3, H, W)."""
    found = resolve(name, "auto" if name in TRAINED else "random")
    if name in TRAINED:
        batches = open_images("embedded", split, count, found.preprocessing).batches(16)
        return torch.cat([torch.as_tensor(batch) for batch in batches])
    return torch.from_numpy(smooth_images(count, 1 if split == "calibration" else 2, found.input_shape[2]))


def make_base(name: str, work: Path) -> None:
    path = work / f"{name}.pt"
    if path.exists():
        return
    found = resolve(name, "auto" if name in TRAINED else "random")
    if name not in TRAINED:
        live_statistics(found.module, 0)
    images = pictures(name, CALIBRATION, "calibration")
    graph = capture(found.module, images[:1])
    passes.optimize(graph)
    result = quantize(graph, images, QuantizeSettings(profile="fast", gptq=False, calibration=CALIBRATION))
    base = Base(result.graph, graph, result.means, result.order, (images,))
    few = [rows[:NOISE_IMAGES] for rows in base.fitted]
    torch.save((base, noise.measure(base.graph, Images(base.graph, few))), path)
    np.save(work / f"{name}.npy", pictures(name, EVALUATION, "evaluation").numpy())
    print(name, "prepared", flush=True)


def load(name: str, work: Path) -> tuple[Base, noise.Noise]:
    base, measured = torch.load(work / f"{name}.pt", weights_only=False)
    return base, measured


def file_of(graph: Graph, target: str = "tflite-int8") -> bytes:
    kind = get_target(target)
    return lower(prepare(graph, kind), kind).data


def time_units(name: str, work: Path) -> None:
    """The units of every precision, and the int8 and the float file whole."""
    base, _ = load(name, work)
    device = load_inventory(None).device(HOST)
    measure(device, units=units_in_all(base.graph, TARGET).all(), root=work / "cost")
    files = {INT8: file_of(base.graph), FLOAT: file_of(base.plain, "tflite-float32")}
    whole = measured_ms(device, files)
    (work / f"{name}.whole.json").write_text(json.dumps(whole))
    print(name, whole, flush=True)


def priced_problem(name: str, work: Path) -> tuple[Base, Problem, Any]:
    """The base, its problem, and what predicts a graph's milliseconds."""
    base, measured = load(name, work)
    units = units_in_all(base.graph, TARGET)
    device = load_inventory(None).device(HOST)
    cost = Cost(measure(device, root=work / "cost"), TARGET)

    def ns(unit: Any) -> float:
        return cost.unit_ns(unit)[0]

    factors = factors_of(units, ns, json.loads((work / f"{name}.whole.json").read_text()))
    prices = priced(units, choices(base.graph), ns, factors)

    def predicted(kinds: Mapping[str, str]) -> float:
        graph = base.graph.copy()
        assign(graph, kinds)
        return predicted_ms(units_of_graph(graph, TARGET), ns, factors)

    return base, problem(base.graph, measured, prices), predicted


def make_files(name: str, work: Path) -> None:
    """One file for every method and budget."""
    folder = work / name
    folder.mkdir(exist_ok=True)
    base, found, predicted = priced_problem(name, work)
    whole = json.loads((work / f"{name}.whole.json").read_text())
    asked: dict[str, dict[str, str]] = {"int8": {}, "float, all": uniform(found, FLOAT)}
    asked |= {"dynamic, all": uniform(found, DYNAMIC), "fastest": fastest(found)}
    low = found.ms(asked["fastest"])
    budgets = {f"{share:.2f} x int8": whole[INT8] * share for share in BUDGETS}
    if low < whole[INT8]:
        between = np.linspace(low * 1.02, whole[INT8], 3)
        budgets |= {f"{ms / whole[INT8]:.2f} x int8": float(ms) for ms in between}
    held, wanted = [rows[:HELD] for rows in base.held], answers_of(base.plain, base.held)[:HELD]

    def on_held(kinds: Mapping[str, str]) -> float:
        """What a build judges by."""
        return sqnr_db(wanted, simulated(quick(base, kinds), held))

    for label, ms in sorted(budgets.items()):
        limit = min(ms, whole[FLOAT])
        stepped, solved = greedy(found, limit), solve(found, limit)
        asked[f"greedy {label}"] = stepped
        tried = [stepped] if solved is None or solved == stepped else [stepped, solved]
        asked[f"ours {label}"] = max(tried, key=on_held) if len(tried) > 1 else stepped
    rows: dict[str, Row] = {}
    kept: dict[tuple[tuple[str, str], ...], str] = {}
    for label, kinds in asked.items():
        key = tuple(sorted(kinds.items()))
        row = {
            "nodes": len(kinds),
            "budget_ms": next((ms for b, ms in budgets.items() if label.endswith(b)), None),
            "model_ms": found.ms(kinds),
            "predicted_ms": predicted(kinds),
            "model_db": found.db(kinds),
        }
        if key not in kept:
            graph = finished(base, kinds)[0] if label == "int8" else quick(base, kinds)
            kept[key] = f"{len(kept)}.tflite"
            (folder / kept[key]).write_bytes(file_of(graph))
        rows[label] = row | {"file": kept[key]}
        print(
            name, label, {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True
        )
    (folder / "float32.tflite").write_bytes(file_of(base.plain, "tflite-float32"))
    rows["float32 file"] = {"file": "float32.tflite"}
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))


def time_files(name: str, work: Path) -> None:
    folder = work / name
    rows = json.loads((folder / "rows.json").read_text())
    files = {
        file: (folder / file).read_bytes() for file in dict.fromkeys(row["file"] for row in rows.values())
    }
    times = measured_ms(load_inventory(None).device(HOST), files)
    (folder / "times.json").write_text(json.dumps(times))
    print(name, times, flush=True)


def judge_files(name: str, work: Path) -> None:
    """SQNR of the answers against the float file's: of all images together, the median and the mean."""
    folder, images = work / name, np.load(work / f"{name}.npy")
    rows = json.loads((folder / "rows.json").read_text())
    wanted = torch.from_numpy(run_model(folder / "float32.tflite", [images])[0]).reshape(len(images), -1)
    found = {}
    for file in dict.fromkeys(row["file"] for row in rows.values()):
        given = torch.from_numpy(run_model(folder / file, [images])[0]).reshape(len(images), -1)
        each = [min(sqnr_db(a, b), 200.0) for a, b in zip(wanted, given, strict=True)]
        found[file] = {
            "pooled_db": min(sqnr_db(wanted, given), 200.0),
            "median_db": float(np.median(each)),
            "mean_db": float(np.mean(each)),
            "agreement": float((wanted.argmax(1) == given.argmax(1)).double().mean()),
        }
    (folder / "judged.json").write_text(json.dumps(found))
    print(name, "judged on", len(images), flush=True)


def table(names: list[str], work: Path) -> None:
    lines = ["# Mixed precision: error against milliseconds", ""]
    facts = machine()
    everything: dict[str, Any] = {"machine": facts, "models": {}}
    for name in names:
        folder = work / name
        rows = json.loads((folder / "rows.json").read_text())
        times = json.loads((folder / "times.json").read_text())
        judged = json.loads((folder / "judged.json").read_text())
        for row in rows.values():
            row |= {"ms": times[row["file"]]} | judged[row["file"]]
        everything["models"][name] = rows
        lines += [f"## {name}", "", *_lines(rows), ""]
    lines += [f"{key}: {value}  " for key, value in facts.items() if isinstance(value, str | int | float)]
    RESULT.with_suffix(".json").write_text(json.dumps(everything, indent=1))
    RESULT.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _lines(rows: Mapping[str, Row]) -> list[str]:
    int8 = rows["int8"]["ms"]
    lines = [
        "| choice | nodes not int8 | predicted ms | p50 ms | of int8's | pooled dB | median dB | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, row in sorted(rows.items(), key=lambda pair: pair[1]["ms"]):
        predicted = f"{row['predicted_ms']:.3f}" if "predicted_ms" in row else ""
        pooled = "" if row["pooled_db"] >= 199 else f"{row['pooled_db']:.1f}"
        median = "" if row["median_db"] >= 199 else f"{row['median_db']:.1f}"
        lines.append(
            f"| {label} | {row.get('nodes', '')} | {predicted} | {row['ms']:.3f} | {row['ms'] / int8:.3f} "
            f"| {pooled} | {median} | {row['agreement']:.4f} |"
        )
    errors = [abs(row["predicted_ms"] - row["ms"]) / int8 for row in rows.values() if "predicted_ms" in row]
    lines += [
        "",
        f"Predicted against measured, in points of int8's time: mean {100 * np.mean(errors):.1f}, "
        f"largest {100 * max(errors):.1f}.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "units", "choose", "time", "judge", "table"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    names = options.models.split(",")
    if options.stage == "table":
        table(names, options.work)
        return
    stage = {"prepare": make_base, "units": time_units, "choose": make_files, "time": time_files}
    for name in names:
        (stage | {"judge": judge_files})[options.stage](name, options.work)


if __name__ == "__main__":
    main()
