"""What a score keeps: accuracy of the hard set's checkpoints, pruned to a share of their MACs and fitted.

Nothing is trained. One line a cell, printed as it is done.

    python benchmarks/pruning_scores.py mobilenet_v3_large --macs 0.6 --scores obs taylor l2
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from hard_set import accuracy, answers, pictures

from edgekit.capture import capture
from edgekit.errors import PruneError
from edgekit.prune import prune_graph
from edgekit.prune.scores import KINDS
from edgekit.train.reference import REFERENCE_DIR, load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--scores", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--scopes", nargs="+", default=["global"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, default=400, help="evaluation pictures")
    parser.add_argument("--calibration", type=int, default=96)
    parser.add_argument("--reference", type=Path, default=REFERENCE_DIR / "hard")
    given = parser.parse_args()

    torch.set_num_threads(1)
    module, row = load_reference(given.model, given.reference)
    side = row["resolution"]
    graph = capture(module, torch.zeros(1, 3, side, side), training=True)
    fit, _ = pictures(row, "calibration", given.calibration)
    inputs, labels = pictures(row, "evaluation", given.images)
    whole = answers(graph, inputs)
    print(f"{given.model} original: {accuracy(whole, labels):.3f}", flush=True)
    for scope in given.scopes:
        for score in given.scores:
            began = time.process_time()
            try:
                done = prune_graph(
                    graph, macs=given.macs, score=score, scope=scope, rounds=given.rounds, images=fit
                )
            except PruneError as error:
                print(f"{score} {scope}: {error}", flush=True)
                continue
            seconds, found = time.process_time() - began, answers(done.graph, inputs)
            error_share = (found - whole).square().sum() / (whole - whole.mean(0)).square().sum()
            shares = [done.record[what][1] / done.record[what][0] for what in ("macs", "params")]
            print(
                f"{score} {scope}: accuracy {accuracy(found, labels):.3f}, "
                f"same answer {accuracy(found, whole.argmax(1)):.3f}, "
                f"squared error {float(error_share):.3f}, MACs {shares[0]:.3f}, parameters {shares[1]:.3f}, "
                f"{seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
