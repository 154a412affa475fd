"""How often the rule of `edgekit compare` is wrong, and which changes it finds.

`python benchmarks/regression_rule.py MODEL.tflite` measures fresh processes of one file on this machine into
build/benchmarks/regression_rule.sqlite, which a second start continues, and judges the rule on them:

- simulated: the processes of 200 pairs of runs are drawn from the measured ones; whatever moved between the
  measured runs is spread over all of them;
- with --real: every two neighbouring ones of 201 measured runs, drifts of the machine included. Keep it idle.

Pairs are equal (A/A), or B's samples are made 5, 10 and 20 % slower. Each pair is judged as the first of a
device (its noise is that between its own processes) and with the history of six other runs, beside what a
test over pooled samples says. Leaves: results/regression_rule.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

import edgekit
from edgekit.device.host import machine
from edgekit.device.profiles import Profile
from edgekit.files import sha256_file, write_atomic
from edgekit.history import History, Record
from edgekit.history.compare import compare, process_medians
from edgekit.pipeline.timing import latency

HERE = Path(__file__).resolve().parent
PROFILE = Profile("rule", 5, 60, 0.3, 2.0, 10, 0.2)
FACTORS = (1.0, 1.05, 1.1, 1.2)
HISTORY_RUNS = 6
RULES = ("first run", "with history", "samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, help="a small .tflite file")
    parser.add_argument("--runs", type=int, default=12, help="measured runs of 5 processes; default 12")
    parser.add_argument("--pairs", type=int, default=200, help="pairs judged; default 200")
    parser.add_argument(
        "--real", action="store_true", help="judge neighbouring measured runs: pairs + 1 runs"
    )
    parser.add_argument("--history", type=Path, help="default build/benchmarks/regression_rule.sqlite")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    path = arguments.history or HERE.parent / "build" / "benchmarks" / "regression_rule.sqlite"
    wanted = arguments.pairs + 1 if arguments.real else arguments.runs
    if wanted < HISTORY_RUNS + 2 or arguments.pairs < 1:
        parser.error(f"at least {HISTORY_RUNS + 2} runs and 1 pair")
    runs = measured(arguments.model, path, wanted)
    rng = np.random.default_rng(0)
    studies = {"simulated": judge(lambda: simulated_pairs(runs, arguments.pairs, rng))}
    if arguments.real:
        studies["real"] = judge(lambda: real_pairs(runs))
    content = facts(arguments, runs) | {"studies": studies}
    write_atomic(arguments.out / "regression_rule.json", json.dumps(content, indent=2) + "\n")
    write_atomic(arguments.out / "regression_rule.md", markdown(content))
    print(f"written: {arguments.out / 'regression_rule.json'} and .md")


def measured(model: Path, path: Path, wanted: int) -> list[Record]:
    """So many runs of the file, oldest first; those the history lacks are measured now."""
    digest = sha256_file(model)
    with History(path) as history:
        done = len(history.query(sha256=digest))
        for number in range(done, wanted):
            history.add(measure(model, digest, number))
            print(f"run {number + 1} of {wanted}", flush=True)
        return history.query(sha256=digest, samples=True)[::-1][:wanted]


def measure(model: Path, digest: str, number: int) -> Record:
    found = latency({"model": model}, profile=PROFILE)
    samples = [run.tolist() for run in found.samples_ns["model"]]
    figures, here = found.files["model"], machine()
    name, _, release = found.runtime.partition(" ")
    return {
        "schema_version": 1,
        "run": f"{digest[:8]}-{number:04d}",
        "created": datetime.now(UTC).isoformat(),
        "device": {
            "id": "host",
            "kind": "host",
            "fingerprint": {key: here[key] for key in ("cpu", "architecture", "cores", "system")},
            "emulated": False,
        },
        "artifact": {"sha256": digest, "name": model.stem, "target": "tflite"},
        "runtime": {
            "name": name,
            "version": release,
            "delegate": "XNNPACK" if figures.delegated else None,
            "partitions": figures.partitions,
        },
        "threads": found.threads,
        "profile": PROFILE.name,
        "power_mode": here["governor"],
        "harness": {"name": "edgekit.pipeline.timing", "version": edgekit.__version__},
        "latency": {
            "p50_ms": figures.p50_ms,
            "p90_ms": figures.p90_ms,
            "p99_ms": figures.p99_ms,
            "n": figures.n,
            "processes": found.processes,
        },
        "samples_ns": samples,
        "load": here["load"],
        "validity": {"ok": True, "reasons": []},
    }


Pairs = Iterator[tuple[Record, Record, list[Record]]]


def simulated_pairs(runs: list[Record], count: int, rng: np.random.Generator) -> Pairs:
    """Runs of five processes each, drawn from all that were measured."""
    pool = [samples for run in runs for samples in run["samples_ns"]]

    def draw(name: str) -> Record:
        chosen = [pool[i] for i in rng.integers(0, len(pool), PROFILE.processes)]
        return with_samples(runs[0], chosen, name)

    for _ in range(count):
        yield draw("a"), draw("b"), [draw(f"repeat-{i}") for i in range(HISTORY_RUNS)]


def real_pairs(runs: list[Record]) -> Pairs:
    """Neighbouring runs, with the six runs before them as history (the first ones: those after)."""
    for i in range(len(runs) - 1):
        before = runs[max(0, i - HISTORY_RUNS) : i]
        after = runs[i + 2 : i + 2 + HISTORY_RUNS - len(before)]
        yield runs[i], runs[i + 1], [*before, *after]


def with_samples(run: Record, samples: list[list[int]], name: str) -> Record:
    p50 = float(np.median(np.concatenate([np.asarray(one) for one in samples]))) / 1e6
    return run | {"run": name, "samples_ns": samples, "latency": run["latency"] | {"p50_ms": p50}}


def judge(pairs: Callable[[], Pairs]) -> list[dict[str, Any]]:
    """A row for each change: how many pairs each rule calls different."""
    rows = []
    for factor in FACTORS:
        called, wrong_way, count = dict.fromkeys(RULES, 0), 0, 0
        for a, b, repeats in pairs():
            slower = [[max(1, round(ns * factor)) for ns in run] for run in b["samples_ns"]]
            b = with_samples(b, slower, b["run"])
            alone, known = compare(a, b), compare(a, b, repeats)
            called["first run"] += alone.verdict in ("regression", "improvement")
            called["with history"] += known.verdict in ("regression", "improvement")
            called["samples"] += samples_differ(a, b)
            wrong_way += factor > 1 and "improvement" in (alone.verdict, known.verdict)
            count += 1
        rows.append(
            {
                "change_percent": round(100 * (factor - 1)),
                "pairs": count,
                "called": called,
                "interval_percent": {rule: wilson(called[rule], count) for rule in RULES},
                "called_improvement": wrong_way,
            }
        )
    return rows


def samples_differ(a: Record, b: Record) -> bool:
    """The naive test, for comparison: Mann-Whitney over pooled samples, normal approximation, p < 0.05."""
    x, y = (np.sort(np.concatenate([np.asarray(run) for run in one["samples_ns"]])) for one in (a, b))
    below = np.searchsorted(y, x, "left").sum() + np.searchsorted(y, x, "right").sum()
    n, m = len(x), len(y)
    z = (below / 2 - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return bool(abs(z) > 1.959964)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson's score)."""
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def facts(arguments: argparse.Namespace, runs: list[Record]) -> dict[str, Any]:
    """What the figures stand on."""
    logs = [np.log(process_medians(run)) for run in runs]
    p50 = np.log([run["latency"]["p50_ms"] for run in runs])
    loads = [run["load"] for run in runs if run["load"] is not None]
    return {
        "command": f"python benchmarks/regression_rule.py {arguments.model.name}"
        + (" --real" if arguments.real else f" --runs {len(runs)}"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": {"edgekit": edgekit.__version__}
        | {name: version(name) for name in ("ai-edge-litert", "numpy")},
        "model": arguments.model.stem,
        "runs": len(runs),
        "processes": sum(len(one) for one in logs),
        "p50_ms": float(np.exp(np.median(p50))),
        "between_process_percent": 100 * math.sqrt(float(np.mean([one.var(ddof=1) for one in logs]))),
        "between_run_percent": 100 * float(p50.std(ddof=1)),
        "load": [min(loads), max(loads)] if loads else None,
    }


def markdown(content: dict[str, Any]) -> str:
    lines = [
        "# The rule of `edgekit compare` on runs whose answer is known",
        "",
        f"{content['runs']} measured runs of {content['model']} ({content['p50_ms']:.3g} ms), "
        f"{content['processes']} fresh processes. Standard deviation of p50: "
        f"{content['between_process_percent']:.2f} % between the processes of a run, "
        f"{content['between_run_percent']:.2f} % between runs.",
        "",
        "Pairs called different, % (95 % interval). At change 0 every call is false: the bar is below 5 %.",
        "",
        "| pairs | change | number | rule, first run of a device | rule, with history | test over samples |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for study, rows in content["studies"].items():
        for row in rows:
            cells = [
                f"{100 * row['called'][rule] / row['pairs']:.1f} ({low:.1f} to {high:.1f})"
                for rule, (low, high) in row["interval_percent"].items()
            ]
            lines.append(f"| {study} | {row['change_percent']} % | {row['pairs']} | {' | '.join(cells)} |")
    here = content["machine"]
    load = f"load {content['load'][0]} to {content['load'][1]}" if content["load"] else "load unknown"
    lines += [
        "",
        f"Measured {content['date']} on {here['cpu']}, {here['cores']} cores, {load} as the runs ended. "
        f"Versions: {', '.join(f'{name} {release}' for name, release in content['versions'].items())}.",
        "",
        f"Command: `{content['command']}`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
