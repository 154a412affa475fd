"""What lite surgery costs before any training: accuracy of the hard set's checkpoints after the fits alone.

Step by step; with `--cost FOLDER` the ladder on this machine's table.

    python benchmarks/lite_surgery.py mobilenet_v3_small --images 1000 --fit 64
    python benchmarks/lite_surgery.py mobilenet_v3_small --cost ~/.cache/edgekit/cost --max-drop 0.02
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from hard_set import accuracy, answers, pictures

from edgekit.capture import capture
from edgekit.cost.predict import cost_for
from edgekit.graph.ir import Graph
from edgekit.surgery import DEFAULT, STEPS, ladder, step
from edgekit.train.reference import REFERENCE_DIR, load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=500, help="evaluation pictures")
    parser.add_argument("--fit", type=int, default=64, help="calibration pictures")
    parser.add_argument("--reference", type=Path, default=REFERENCE_DIR / "hard")
    parser.add_argument("--steps", nargs="+", default=[name for name in STEPS if name in DEFAULT])
    parser.add_argument("--cost", type=Path, help="folder of cost tables: the ladder too")
    parser.add_argument("--max-drop", type=float, default=0.01)
    given = parser.parse_args()

    torch.set_num_threads(1)
    module, row = load_reference(given.model, given.reference)
    graph = capture(module, torch.zeros(1, 3, row["resolution"], row["resolution"]))
    fitted, _ = pictures(row, "calibration", given.fit)
    inputs, labels = pictures(row, "evaluation", given.images)

    def said(name: str, changed: Graph, **more: object) -> None:
        line = {
            "model": given.model,
            "form": name,
            "accuracy": accuracy(answers(changed, inputs), labels),
            **more,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    if given.cost is not None:
        found = ladder(
            graph,
            fitted,
            cost=cost_for(cache=given.cost),
            judge=lambda changed: accuracy(answers(changed, inputs), labels),
            max_drop=given.max_drop,
        )
        sys.stdout.write(json.dumps(found.as_dict()["climb"], indent=1) + "\n")
        return
    said("original", graph)
    for name in given.steps:
        said(f"{name} alone", step(name, graph, fitted)[0])
    changed, names = graph, list[str]()
    for name in (name for name in STEPS if name in given.steps):
        names.append(name)
        start = time.process_time()
        changed, record = step(name, changed, fitted, reference=graph)
        seconds = time.process_time() - start
        said("+".join(names), changed, params=record.params_after, sqnr_db=record.sqnr_db, cpu_s=seconds)


if __name__ == "__main__":
    main()
