"""Trains the reference checkpoints that ship with edgekit, on the embedded image sets.

    python -m edgekit.train.reference mobilenet_v3_large --minutes 25 --out edgekit/zoo/reference
    python -m edgekit.train.reference resnet18 --data embedded-hard --minutes 22 --out reference/hard

In: a model name and a time budget. Out: DIR/<name>.safetensors (the state_dict in fp16) and its row in
DIR/index.json, whose accuracy was measured on the evaluation split with the rounded weights.

A model of `embedded-hard` whose checkpoint on `embedded` is shipped begins with it, unless `--scratch`: its
classes are the first of the hard ones, and enlarged figures are as many pixels wide at 96 as others at 160.

The training is edgekit.train's own loop: small pictures first, Muon, an average of the weights. The budget is
time on the processor; one that was killed goes on exactly when the same command runs again. The pictures are
generated, so the training set has no end; within a stage a pool is drawn again and again, each time turned,
mirrored and with its colour channels permuted, which changes no class.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekit.data.shapes import EMBEDDED, HARD, ShapeSet
from edgekit.errors import UnknownModelError, did_you_mean
from edgekit.train.data import EmbeddedData, Grade, normalised
from edgekit.train.end_to_end import train
from edgekit.train.settings import Settings, Stage

REFERENCE_DIR = Path(__file__).parent.parent / "zoo" / "reference"
SOURCES = {
    "mobilenet_v3_large": "torchvision",
    "mobilenet_v3_small": "torchvision",
    "mobilenet_v2": "torchvision",
    "efficientnet_lite0": "timm",
    "resnet18": "torchvision",
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Plan:
    """How models of one set are trained and judged.

    stages: from nothing; the zoom keeps a figure about as many pixels wide in every stage: what is learned at
    64 then carries over. resumed: from a checkpoint.
    """

    images: ShapeSet
    resolution: int
    evaluation: int
    stages: tuple[tuple[Stage, Grade], ...]
    resumed: tuple[tuple[Stage, Grade], ...]


PLANS = {
    EMBEDDED.name: Plan(
        EMBEDDED,
        resolution=224,
        evaluation=2000,
        stages=(
            (Stage(0.10, 56, 64), Grade(12000, hard=0.3, zoom=1.8)),
            (Stage(0.32, 64, 64), Grade(36000, zoom=1.7)),
            (Stage(0.22, 96, 64), Grade(16000, zoom=1.6)),
            (Stage(0.14, 144, 64), Grade(6000, zoom=1.3)),
            (Stage(0.22, 224, 32), Grade(2000)),
        ),
        resumed=((Stage(1.0, 224, 32), Grade(6000)),),
    ),
    HARD.name: Plan(
        HARD,
        resolution=160,
        evaluation=4000,
        stages=(
            (Stage(0.10, 64, 64), Grade(16000, hard=0.3, zoom=1.7)),
            (Stage(0.45, 96, 64), Grade(32000, zoom=1.65)),
            (Stage(0.18, 128, 64), Grade(12000, zoom=1.25)),
            (Stage(0.27, 160, 48), Grade(8000)),
        ),
        resumed=(
            (Stage(0.4, 128, 64), Grade(12000, zoom=1.25)),
            (Stage(0.6, 160, 48), Grade(8000)),
        ),
    ),
}
RATE = 2e-3
RESUMED_RATE = 0.3  # of it: late in a schedule
EMA_STEPS = 60  # the average's memory, in steps


def build(name: str, classes: int = len(EMBEDDED.figures)) -> tuple[nn.Module, tuple, tuple]:
    """An untrained reference model with one output a class, and its input mean and std."""
    if name not in SOURCES:
        raise UnknownModelError(
            f"reference: no model '{name}'{did_you_mean(name, SOURCES)}: one of {', '.join(SOURCES)}"
        )
    if SOURCES[name] == "timm":
        import timm

        model = timm.create_model(name, pretrained=False, num_classes=classes)
        config: Any = model.default_cfg
        return model, tuple(config["mean"]), tuple(config["std"])
    import torchvision

    model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return model, *IMAGENET


def load_reference(name: str, folder: Path = REFERENCE_DIR) -> tuple[nn.Module, dict]:
    """A shipped checkpoint in float32, in eval mode, and its row of index.json."""
    row = json.loads((folder / "index.json").read_text())[name]
    model, _, _ = build(name, row["num_classes"])
    state = load_file(folder / f"{name}.safetensors")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval(), row


def carry_over(model: nn.Module, start: nn.Module) -> None:
    """Give `model` the weights of one with fewer classes, which come first; further classes stay as drawn."""
    state = model.state_dict()
    for name, tensor in start.state_dict().items():
        state[name][: len(tensor)].copy_(tensor) if tensor.ndim else state[name].copy_(tensor)


@torch.no_grad()
def accuracy(model: nn.Module, mean: tuple, std: tuple, plan: Plan) -> float:
    """Top-1 on the first evaluation pictures of the plan's set."""
    device = next(model.parameters()).device
    model.eval()
    right = 0
    count = plan.evaluation
    for start in range(0, count, 100):
        images, labels = plan.images.generate("evaluation", min(100, count - start), plan.resolution, start)
        logits = model(normalised(torch.from_numpy(images).to(device), mean, std))
        right += int((logits.argmax(1).cpu() == torch.from_numpy(labels)).sum())
    return right / count


class Renormalised(nn.Module):
    """A teacher on a student's pictures: from one mean and std to the other."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, teacher: nn.Module, given: tuple[tuple, tuple], wanted: tuple[tuple, tuple]) -> None:
        super().__init__()
        self.teacher = teacher
        (mean, std), (own_mean, own_std) = (
            (torch.tensor(mean).reshape(-1, 1, 1), torch.tensor(std).reshape(-1, 1, 1))
            for mean, std in (given, wanted)
        )
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.teacher(images * self.scale + self.shift)


def train_reference(
    name: str,
    minutes: float,
    cache: Path,
    teacher: nn.Module | None = None,
    teacher_input: tuple = IMAGENET,
    start: nn.Module | None = None,
    seed: int = 0,
    threads: int | None = None,
    plan: Plan = PLANS["embedded"],
    checkpoint: Path | None = None,
) -> tuple[nn.Module, tuple, tuple]:
    """The trained model in eval mode, its mean and std.

    `teacher` adds distillation; `start` is a model to continue from, in the last stages. Filling
    the cache takes no time of the budget.
    """
    torch.manual_seed(seed)
    model, mean, std = build(name, len(plan.images.figures))
    rate, stages = RATE, plan.stages
    if start is not None:
        same = all(a.shape == b.shape for a, b in zip(model.parameters(), start.parameters(), strict=True))
        carry_over(model, start)
        rate, stages = (RATE * RESUMED_RATE, plan.resumed) if same else (RATE, stages[1:])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # thousands of steps, not hundreds of thousands
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the pictures never run out: there is nothing to regularise
    whole = sum(stage.share for stage, _ in stages)
    settings = Settings(
        minutes=minutes,
        rate=rate,
        optimizer="muon",
        warmup=0.03,
        final=0.005,
        label_smoothing=0.05,
        ema=EMA_STEPS,
        stages=tuple(stage._replace(share=stage.share / whole) for stage, _ in stages),
        seed=seed,
        threads=threads,
    )
    data = EmbeddedData(
        plan.images.name,
        plan.resolution,
        mean,
        std,
        grades={stage.size or plan.resolution: grade for stage, grade in stages},
        first=100_000 * seed,
        cache=cache,
        workers=os.cpu_count() or 1,
    )
    if teacher is not None:
        teacher = Renormalised(teacher, (mean, std), teacher_input)

    def progress(done: int, total: int) -> None:
        if done % 50 == 0:
            print(f"{name} {done}/{total}", flush=True)

    train(model, data, settings, teacher=teacher, checkpoint=checkpoint, progress=progress)
    return model, mean, std


def save(
    model: nn.Module, name: str, mean: tuple, std: tuple, folder: Path, command: str, plan: Plan
) -> dict:
    """Round to fp16, measure what was rounded, write the checkpoint and its row of index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    fresh, _, _ = build(name, len(plan.images.figures))
    fresh.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    path = folder / f"{name}.safetensors"
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    recorded = accuracy(fresh, mean, std, plan)
    row = {
        "source": SOURCES[name],
        "data": plan.images.name,
        "num_classes": len(plan.images.figures),
        "class_names": list(plan.images.class_names),
        "resolution": plan.resolution,
        "mean": list(mean),
        "std": list(std),
        "interpolation": "bilinear",
        "accuracy": recorded,
        "evaluation_images": plan.evaluation,
        "trained_with": command,
        "sha256": hashlib.sha256(partial.read_bytes()).hexdigest(),
    }
    partial.replace(path)
    index = folder / "index.json"
    rows = json.loads(index.read_text()) if index.exists() else {}
    rows[name] = row
    index.write_text(json.dumps(dict(sorted(rows.items())), indent=2) + "\n")
    return row


def _shipped(name: str) -> bool:
    return (REFERENCE_DIR / f"{name}.safetensors").exists()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m edgekit.train.reference", description=__doc__)
    parser.add_argument("model", choices=sorted(SOURCES))
    parser.add_argument("--data", choices=sorted(PLANS), default=EMBEDDED.name, help="the set to train on")
    parser.add_argument("--scratch", action="store_true", help="take nothing from the other set's checkpoint")
    parser.add_argument("--minutes", type=float, default=25.0, help="processor time to train for, per thread")
    parser.add_argument("--out", type=Path, default=Path("reference"), help="where the checkpoint goes")
    parser.add_argument("--cache", type=Path, default=Path("reference-cache"), help="generated pictures")
    parser.add_argument("--teacher", choices=sorted(SOURCES), help="distil from this checkpoint in --out")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--threads", type=int, help="CPU threads; on two cores two runs of one are faster")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    command = f"python -m edgekit.train.reference {options.model} --minutes {options.minutes:g}"
    plan = PLANS[options.data]
    if options.data != EMBEDDED.name:
        command += f" --data {options.data}"
    if options.threads:
        command += f" --threads {options.threads}"
    teacher, teacher_input = None, IMAGENET
    if options.teacher:
        command += f" --teacher {options.teacher}"
        teacher, row = load_reference(options.teacher, options.out)
        teacher_input = (tuple(row["mean"]), tuple(row["std"]))
    start = None
    if options.resume:
        start, row = load_reference(options.model, options.out)
        command = f"{row['trained_with']} && {command} --resume"
    elif plan.images is not EMBEDDED and not options.scratch and _shipped(options.model):
        start, _ = load_reference(options.model)
    elif options.scratch:
        command += " --scratch"
    if options.seed:
        command += f" --seed {options.seed}"
    checkpoint = options.out / f"{options.model}.training.pt"
    model, mean, std = train_reference(
        options.model,
        options.minutes,
        options.cache,
        teacher,
        teacher_input,
        start,
        options.seed,
        options.threads,
        plan,
        checkpoint,
    )
    row = save(model, options.model, mean, std, options.out, command, plan)
    checkpoint.unlink()
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
