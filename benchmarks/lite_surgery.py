"""What lite surgery costs: accuracy of the hard set's checkpoints after the fits alone, and after recovery.

Step by step; with `--recover MINUTES` all steps together and recovered, in float and as an int8 file, and how
much of that file the Edge TPU leaves; with `--cost FOLDER` the ladder on this machine's table. Minutes are of
the processor and hold the fits; with the same `--work` a recovery that was killed goes on.

    python benchmarks/lite_surgery.py mobilenet_v3_small --images 1000 --fit 64
    python benchmarks/lite_surgery.py mobilenet_v3_large --steps no-se relu6 --recover 15 --images 4000
    python benchmarks/lite_surgery.py mobilenet_v3_small --cost ~/.cache/edgekit/cost --max-drop 0.02
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from hard_set import BATCH, accuracy, answers, pictures
from pruned_forms import INT8, file_of

from edgekit.capture import capture
from edgekit.cost.predict import cost_for
from edgekit.files import default_root
from edgekit.graph.ir import Graph
from edgekit.graph.module import as_module
from edgekit.passes import optimize
from edgekit.pipeline import finished
from edgekit.runtimes.runtime import run_model
from edgekit.surgery import DEFAULT, STEPS, ladder, lite, step
from edgekit.train.data import EmbeddedData
from edgekit.train.recovery import Recovery, recover
from edgekit.train.reference import REFERENCE_DIR, load_reference

POOL = 8000  # pictures that are learned from
RANGES = 128  # calibration pictures for int8 ranges


def recovered(graph: Graph, original: Graph, row: dict, minutes: float, work: Path) -> tuple[Graph, Recovery]:
    """The graph after so many minutes of distillation, as a build's `[lite] recover` does it."""
    folded = original.copy()
    optimize(folded)
    mean, std = tuple(row["mean"]), tuple(row["std"])
    data = EmbeddedData(row["data"], row["resolution"], mean, std, pool=POOL, cache=work.parent / "pictures")
    module = as_module(graph)
    done = recover(module, as_module(folded).eval(), data, minutes=minutes, directory=work)
    return module.to_graph(), done


def int8(graph: Graph, ranges: torch.Tensor, inputs: torch.Tensor, path: Path) -> tuple[torch.Tensor, int]:
    """What the int8 file answers in its own runtime, and how many operators the Edge TPU would leave."""
    path.write_bytes(file_of(graph, INT8, ranges))
    answered = [torch.from_numpy(run_model(path, part.numpy())[0]) for part in inputs.split(BATCH)]
    return torch.cat(answered), sum(found["on_cpu"] for found in finished.check(path, None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=500, help="evaluation pictures")
    parser.add_argument("--fit", type=int, default=64, help="calibration pictures")
    parser.add_argument("--reference", type=Path, default=REFERENCE_DIR / "hard")
    parser.add_argument("--steps", nargs="+", default=[name for name in STEPS if name in DEFAULT])
    parser.add_argument("--cost", type=Path, help="folder of cost tables: the ladder too")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--recover", type=float, help="minutes of the processor, the fits included")
    parser.add_argument("--alone", action="store_true", help="with --recover: each step by itself as well")
    parser.add_argument("--work", type=Path, default=default_root() / "lite", help="pictures, checkpoints")
    given = parser.parse_args()

    torch.set_num_threads(1)
    module, row = load_reference(given.model, given.reference)
    graph = capture(module, torch.zeros(1, 3, row["resolution"], row["resolution"]), training=True)
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
    if given.recover is not None:
        forms = [*([[name] for name in given.steps] if given.alone else []), given.steps]
        for steps in forms:
            start = time.process_time()
            changed = lite(graph, fitted, steps=steps).graph
            fits = time.process_time() - start
            name = "+".join(name for name in STEPS if name in steps)
            said(name, changed, cpu_s=fits)
            work = given.work / f"{given.model}-{name}-{given.recover:g}"
            changed, done = recovered(changed, graph, row, given.recover - fits / 60, work)
            answered, on_cpu = int8(changed, fitted[:RANGES], inputs, work / "model.tflite")
            said(
                f"{name} recovered",
                changed,
                int8=accuracy(answered, labels),
                operators_off_the_edge_tpu=on_cpu,
                steps=done.steps,
                blocks=len(done.blocks),
                cpu_s=fits + done.seconds,
            )
        return
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
