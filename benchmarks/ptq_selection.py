"""What calibration chooses, against plain min/max and against the best of its candidates.

Cells are (network, number of calibration images, draw). In each, every candidate is fitted to all images of
the draw and judged on --evaluation images that no draw holds: gain of the chosen one over plain min/max, and
regret, what the best candidate has over the chosen one. Networks: the hard set's checkpoints on its pictures,
and seeded ones with live batch norm on smooth random images at 96 pixels.

One JSON line a cell, kept as it is done: a run that is started again goes on. The page is written at the end
and with --page.

    python benchmarks/ptq_selection.py --work DIR [--networks ...] [--counts ...] [--draws 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from hard_set import answers, pictures
from seeded import create_module, live_statistics, smooth_images

from edgekit import passes
from edgekit.capture import capture
from edgekit.graph.ir import Graph
from edgekit.quantize import QuantizeSettings, simulate
from edgekit.quantize.candidates import Candidate
from edgekit.quantize.images import Images
from edgekit.quantize.judged import Judged, judge
from edgekit.quantize.ptq import CORRECTION_IMAGES, chosen, observed, resolved
from edgekit.train.reference import REFERENCE_DIR, load_reference

TRAINED = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v2")
SEEDED = ("lcnet_050", "regnetx_002", "resnet10t", "dla46_c", "fbnetc_100")
COUNTS = (64, 16, 8, 128, 32)
SIDE = 96
RESULTS = Path(__file__).parent / "results"
SETTINGS = resolved(QuantizeSettings("thorough", calibration=512))


class Network:
    """A float graph, the pool its draws come from, and what it answers on evaluation images."""

    def __init__(self, name: str, draws: int, evaluation: int) -> None:
        pool = draws * max(COUNTS)
        if name in TRAINED:
            module, row = load_reference(name, REFERENCE_DIR / "hard")
            self.pool, _ = pictures(row, "calibration", pool)
            self.unseen, _ = pictures(row, "evaluation", evaluation)
        else:
            torch.manual_seed(0)
            module = create_module("timm", name)
            live_statistics(module, 1000, SIDE)
            self.pool, self.unseen = (
                torch.from_numpy(smooth_images(n, seed, SIDE)) for n, seed in ((pool, 1), (evaluation, 2))
            )
        self.graph: Graph = capture(module, self.pool[:1], name)
        passes.optimize(self.graph)
        self.wanted = answers(self.graph, self.unseen)

    def judged(self, graph: Graph) -> tuple[Judged, float]:
        """SQNR against float, and the share of equal answers."""
        made = simulate(graph, self.unseen)[0]
        same = float((made.argmax(1) == self.wanted.argmax(1)).double().mean())
        return judge([self.wanted], [made], [1.0]), same


def cell(network: Network, count: int, draw: int, everything: bool) -> dict:
    """One cell; `everything`: also the candidates that lost, for the regret."""
    graph = network.graph.copy()
    images = Images(graph, network.pool[draw * max(COUNTS) :][:count])
    began = time.process_time()
    fitter = observed(graph, images, SETTINGS)
    choice = chosen(fitter, SETTINGS, lambda _line: None)
    order = fitter.outvoted_last(torch.arange(count))
    fitter.fit(choice.chosen, order, CORRECTION_IMAGES["thorough"])
    seconds = time.process_time() - began
    tried = list(dict.fromkeys([Candidate(), choice.chosen, *(choice.judged if everything else ())]))
    rows, known = {}, {}
    for candidate in tried:
        fitter.fit(candidate, order, CORRECTION_IMAGES["thorough"])
        same = tuple(value.quant for value in graph.values())
        if same not in known or candidate.bias_correction or candidate.gptq:
            known[same] = network.judged(graph)
        judged, equal = known[same]
        rows[candidate.name] = {
            **judged.figures(),
            "equal": equal,
            "images": len(choice.judged[candidate]),
            "folds": choice.gains(candidate, Candidate()),
        }
    return {"chosen": choice.chosen.name, "plain": Candidate().name, "seconds": seconds, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=[*TRAINED, *SEEDED])
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--evaluation", type=int, default=400)
    parser.add_argument("--only-chosen", action="store_true", help="no regret: min/max and the chosen one")
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    kept = given.work / "cells.jsonl"
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    have = {(row["network"], row["count"], row["draw"]) for row in done}
    networks: dict[str, Network] = {}
    order = itertools.product(range(given.first_draw, given.draws), given.counts, given.networks)
    for draw, count, name in () if given.page else order:
        if (name, count, draw) in have:
            continue
        if name not in networks:
            networks[name] = Network(name, 3, given.evaluation)
        row = {"network": name, "count": count, "draw": draw, "evaluation": given.evaluation}
        row |= cell(networks[name], count, draw, not given.only_chosen)
        with kept.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        done.append(row)
        print(f"{name} {count} {draw}: {row['chosen']} {_gains(row)}", flush=True)
    RESULTS.joinpath("ptq_selection.json").write_text(json.dumps(done, indent=1) + "\n")
    RESULTS.joinpath("ptq_selection.md").write_text(page(done))


def _gains(row: dict) -> dict[str, float]:
    one, plain = row["rows"][row["chosen"]], row["rows"][row["plain"]]
    return {k: round(one[k] - plain[k], 2) for k in ("median", "pooled", "mean")}


def _regret(row: dict, figure: str) -> float:
    return max(one[figure] for one in row["rows"].values()) - row["rows"][row["chosen"]][figure]


def page(rows: list[dict]) -> str:
    """Markdown: a table a kind of network, the bars, and what was chosen."""
    lines = [
        "# What calibration chooses",
        "",
        "Gain in dB of the chosen candidate over plain min/max on images that no draw holds: mean over the "
        "draws and the worst of them. Regret: what the best candidate, found with the evaluation images, has "
        "over the chosen one. Command: `python benchmarks/ptq_selection.py --work DIR`.",
        "",
        "| network | images | draws | median gain | worst | pooled gain | worst | regret median | pooled | "
        "processor s | chosen |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, count in sorted({(r["network"], r["count"]) for r in rows}):
        cells = [r for r in rows if (r["network"], r["count"]) == (name, count)]
        median, pooled = ([_gains(r)[k] for r in cells] for k in ("median", "pooled"))
        whole = [r for r in cells if len(r["rows"]) > 2]
        regrets = [
            f"{statistics.mean(_regret(r, k) for r in whole):.2f}" if whole else "-"
            for k in ("median", "pooled")
        ]
        names = ", ".join(dict.fromkeys(r["chosen"] for r in cells))
        lines.append(
            f"| {name} | {count} | {len(cells)} | {np.mean(median):+.2f} | {min(median):+.2f} | "
            f"{np.mean(pooled):+.2f} | {min(pooled):+.2f} | {regrets[0]} | {regrets[1]} | "
            f"{np.mean([r['seconds'] for r in cells]):.0f} | {names} |"
        )
    return "\n".join([*lines, "", *_bars(rows), ""])


def _bars(rows: list[dict]) -> list[str]:
    many = [r for r in rows if r["network"] in TRAINED and r["count"] >= 64]
    whole = [r for r in rows if len(r["rows"]) > 2]
    said = [
        f"{len(rows)} cells, {rows[0]['evaluation']} evaluation images each. The lowest median gain is "
        f"{min(_gains(r)['median'] for r in rows):+.2f} dB, the lowest pooled gain "
        f"{min(_gains(r)['pooled'] for r in rows):+.2f} dB."
    ]
    if many:
        means = [statistics.mean(_gains(r)[k] for r in many) for k in ("median", "pooled")]
        said.append(
            f"Trained networks with 64 images and more gain {means[0]:+.2f} dB in the median and "
            f"{means[1]:+.2f} dB pooled, on average over {len(many)} cells."
        )
    if whole:
        regrets = [statistics.mean(_regret(r, k) for r in whole) for k in ("median", "pooled")]
        said.append(
            f"Regret is {regrets[0]:.2f} dB in the median and {regrets[1]:.2f} dB pooled, on average over "
            f"{len(whole)} cells."
        )
    return ["\n".join(said)]


if __name__ == "__main__":
    main()
