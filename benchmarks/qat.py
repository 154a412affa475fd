"""What training of the integers wins over calibration alone, on the hard set's checkpoints.

    python benchmarks/qat.py light mobilenet_v3_small mobilenet_v2 mobilenet_v3_large --images 4000
    python benchmarks/qat.py full mobilenet_v3_small --minutes 8 --images 4000

`light` learns the float answers on unlabelled pictures, `full` the labels with the float model as teacher;
beside `full` the float model is trained on as long, so that training is not counted as quantization's gain.
Each row is written to --out as soon as it is there, and a run that was killed goes on where it was.
`pictures` makes the pictures that the others read.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hard_set import answers
from torch import nn

from edgekit import passes
from edgekit.capture import capture
from edgekit.data import open_images
from edgekit.data.preprocessing import Preprocessing
from edgekit.graph.ir import Graph
from edgekit.graph.module import as_module
from edgekit.qat.train import Light, Rates, full, light
from edgekit.quantize import QuantizeSettings, quantize, simulate
from edgekit.tasks.statistics import drop_interval
from edgekit.train import Settings, train
from edgekit.train.data import EmbeddedData, drawn, normalised
from edgekit.train.reference import REFERENCE_DIR, load_reference

Tensor = torch.Tensor
_AT_ONCE = 25


class Pixels:
    """Rows of uint8 pictures as the network takes them."""

    def __init__(self, images: np.ndarray, row: dict[str, Any]) -> None:
        self.images, self.mean, self.std = images, row["mean"], row["std"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Tensor:
        chosen = np.asarray(torch.arange(len(self))[index])
        return normalised(torch.from_numpy(np.ascontiguousarray(self.images[chosen])), self.mean, self.std)


class RowsData:
    """Pictures of `Pixels` to train on, without labels."""

    def __init__(self, rows: Pixels, name: str) -> None:
        self.rows, self.identity, self.count = rows, {"rows": name}, len(rows)

    def batches(self, step: int, batch: int, size: int | None, seed: int) -> tuple[tuple[Tensor], None]:
        return (self.rows[torch.from_numpy(drawn(step, batch, self.count, seed))],), None


def pictures(row: dict[str, Any], split: str, count: int, cache: Path) -> tuple[Pixels, Tensor]:
    """The first pictures of a split, kept on disk as bytes."""
    side = row["resolution"]
    path = cache / f"{row['data']}-{split}-{side}-{count}.npy"
    like = Preprocessing(side, side, row["interpolation"], tuple(row["mean"]), tuple(row["std"]))
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = open_images(row["data"], split, count, like)
        parts = [images.pixels(at, min(at + 250, count)) for at in range(0, count, 250)]
        assert images.labels is not None
        np.save(path.with_suffix(".labels.npy"), images.labels)
        np.save(path, np.concatenate(parts))
    labels = torch.as_tensor(np.load(path.with_suffix(".labels.npy")))
    return Pixels(np.load(path, mmap_mode="r"), row), labels


def measured(wanted: Tensor, found: Tensor, labels: Tensor) -> dict[str, Any]:
    """SQNR over images, agreement with the float model and accuracy, of logits (N, classes)."""
    noise, signal = (found - wanted).double().square().sum(1), wanted.double().square().sum(1)
    each = 10 * torch.log10(signal / noise.clamp_min(1e-12))
    right, meant = (found.argmax(1) == labels), (wanted.argmax(1) == labels)
    lost, gained = int((meant & ~right).sum()), int((right & ~meant).sum())
    low, high = drop_interval(len(labels), lost, gained)
    return {
        "median_db": float(each.median()),
        "mean_db": float(each.mean()),
        "pooled_db": float(10 * torch.log10(signal.sum() / noise.sum())),
        "agreement": float((found.argmax(1) == wanted.argmax(1)).double().mean()),
        "accuracy": float(right.double().mean()),
        "drop_points": 100.0 * (lost - gained) / len(labels),
        "drop_low": low,
        "drop_high": high,
    }


def simulated(graph: Graph, rows: Pixels) -> Tensor:
    parts = range(0, len(rows), 250)
    return torch.cat([simulate(graph, rows[slice(at, at + 250)], batch=_AT_ONCE)[0] for at in parts])


def float_answers(graph: Graph, rows: Pixels) -> Tensor:
    return torch.cat([answers(graph, rows[slice(at, at + 250)]) for at in range(0, len(rows), 250)])


class Bench:
    """One checkpoint, calibrated."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name, self.given = name, given
        self.module, self.row = load_reference(name, REFERENCE_DIR / "hard")
        side = self.row["resolution"]
        self.captured = capture(self.module, torch.zeros(1, 3, side, side), training=True)
        self.plain = self.captured.copy()
        passes.optimize(self.plain)
        self.judged, self.labels = pictures(self.row, "evaluation", given.images, given.cache)
        self.judged.images, self.labels = self.judged.images[: given.judged], self.labels[: given.judged]
        calibration, _ = pictures(self.row, "calibration", given.calibration, given.cache)
        settings = QuantizeSettings(profile=given.profile, ranges=given.ranges, calibration=given.calibration)
        start = time.process_time()
        self.annotated = quantize(self.plain, calibration[slice(None)], settings).graph
        self.seconds = time.process_time() - start
        self.wanted = float_answers(self.plain, self.judged)

    def said(self, form: str, found: Tensor, **more: Any) -> None:
        line = {"model": self.name, "form": form, "n": len(self.labels)}
        line |= measured(self.wanted, found, self.labels) | more
        with open(self.given.out, "a") as file:
            file.write(json.dumps(line) + "\n")
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def calibrated(self) -> None:
        self.said("float", self.wanted)
        more = {"cpu_s": self.seconds, "ranges": self.given.ranges or "auto"}
        self.said("ptq", simulated(self.annotated, self.judged), **more)

    def light(self) -> None:
        given = self.given
        rows, _ = pictures(self.row, "train", given.train + given.held, given.cache)
        held = rows[slice(0, given.held)]
        told = Light(steps=given.steps, classes=0)
        if given.scale != 1.0:
            rates = {key: value * given.scale for key, value in asdict(told.rates).items()}
            told = replace(told, rates=Rates(**rates))
        data = RowsData(Pixels(rows.images[given.held :], self.row), f"train {given.train} {given.held}")
        start = time.process_time()
        folder = given.cache / f"{self.name}-light-{given.steps}-{given.ranges}-{given.scale}"
        done = light(self.annotated, self.plain, data, held, told, directory=folder)
        seconds = time.process_time() - start
        self.said(
            "light",
            simulated(done.graph, self.judged),
            cpu_s=seconds,
            steps=told.steps,
            held_out=asdict(done.judgement),
        )

    def full(self) -> None:
        given, side = self.given, self.row["resolution"]
        data = EmbeddedData(
            self.row["data"],
            side,
            tuple(self.row["mean"]),
            tuple(self.row["std"]),
            pool=given.pool,
            first=given.first,
            cache=given.cache / "pictures",
        )
        rows, labels = pictures(self.row, "train", given.train + given.held, given.cache)
        held, classes = rows[slice(0, given.held)], labels[: given.held]
        teacher = as_module(self.captured).eval()
        settings = Settings(
            minutes=given.minutes,
            batch=given.batch,
            ema=100,
            hard_share=0.3,
            weight_decay=0.0,
            freeze_batch_norm="statistics",
        )

        def learn(module: nn.Module, optimizers: Any) -> Any:
            path = given.cache / f"{self.name}-full-{given.minutes:g}.pt"
            return train(module, data, settings, teacher=teacher, checkpoint=path, optimizers=optimizers)

        rate = given.rate
        rates = Rates(rate, rate / 2, rate / 40, rate / 200, 0.02)
        done = full(self.annotated, self.plain, learn, held, classes, rates=rates)
        more = {"steps": done.record.steps, "cpu_s": done.record.seconds, "held_out": asdict(done.judgement)}
        self.said("full", simulated(done.graph, self.judged), **more)
        module = as_module(copy.deepcopy(self.captured))
        same = replace(settings, rate=given.float_rate, minutes=None, steps=done.record.steps)
        path = given.cache / f"{self.name}-float-{done.record.steps}.pt"
        record = train(module, data, same, teacher=teacher, checkpoint=path)
        self.said("float trained on", float_answers(module.to_graph(), self.judged), cpu_s=record.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("how", choices=("light", "full", "pictures"))
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=int, default=4000, help="evaluation pictures")
    parser.add_argument("--judged", type=int, help="how many of these are looked at; default all")
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--train", type=int, default=480)
    parser.add_argument("--held", type=int, default=256)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--scale", type=float, default=1.0, help="of light's rates")
    parser.add_argument("--profile", default="thorough", help="of the calibration: thorough or fast")
    parser.add_argument("--ranges", default=None, help="mse, trim, minmax; default auto")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--first", type=int, default=160_000_000, help="number of the pool's first picture")
    parser.add_argument("--rate", type=float, default=2e-2, help="of full, in steps of the weights")
    parser.add_argument("--float-rate", type=float, default=2e-4)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/edgekit/qat").expanduser())
    parser.add_argument("--out", type=Path, default=Path("qat.jsonl"))
    given = parser.parse_args()

    torch.set_num_threads(1)
    for name in given.models:
        if given.how == "pictures":
            _, row = load_reference(name, REFERENCE_DIR / "hard")
            for split, count in (
                ("evaluation", given.images),
                ("calibration", given.calibration),
                ("train", given.train + given.held),
            ):
                pictures(row, split, count, given.cache)
            continue
        bench = Bench(name, given)
        bench.calibrated()
        bench.light() if given.how == "light" else bench.full()


if __name__ == "__main__":
    main()
