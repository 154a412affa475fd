"""Trains the reference checkpoints that ship with edgekit, on the embedded image sets.

    python -m edgekit.train.reference mobilenet_v3_large --minutes 25 --out edgekit/zoo/reference
    python -m edgekit.train.reference resnet18 --data embedded-hard --minutes 22 --out reference/hard

In: a model name and a time budget. Out: DIR/<name>.safetensors (the state_dict in fp16) and its row in
DIR/index.json, whose accuracy was measured on the evaluation split with the rounded weights.

A model of `embedded-hard` whose checkpoint on `embedded` is shipped begins with it, unless `--scratch`: its
classes are the first of the hard ones, and enlarged figures are as many pixels wide at 96 as others at 160.

The budget is time on the processor, and every schedule (rate, resolution, difficulty) runs on the share of
it that is spent: a slower machine takes fewer steps, not longer, and other programs do not count unless
`--wall` says when to be done. The pictures are generated, so the training set has no end; within a stage a
pool is drawn again and again, each time turned, mirrored and with its colour channels permuted, which
changes no class.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import permutations, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from edgekit.data.shapes import EMBEDDED, HARD, ShapeSet
from edgekit.errors import UnknownModelError, did_you_mean
from edgekit.train import layers
from edgekit.train.data import normalised
from edgekit.train.distillation import distillation_loss
from edgekit.train.muon import Muon
from edgekit.train.schedules import cosine_rate, progressive_stage

REFERENCE_DIR = Path(__file__).parent.parent / "zoo" / "reference"
SOURCES = {
    "mobilenet_v3_large": "torchvision",
    "mobilenet_v3_small": "torchvision",
    "mobilenet_v2": "torchvision",
    "efficientnet_lite0": "timm",
    "resnet18": "torchvision",
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# (share of the time, resolution, pictures in the pool, batch, how hard, zoom: see shapes.generate)
Stage = tuple[float, int, int, int, float, float]


@dataclass(frozen=True)
class Plan:
    """How models of one set are trained and judged.

    stages: from nothing; the zoom keeps a figure about as many pixels wide in every stage: what is learned at
    64 then carries over. resumed: from a checkpoint.
    """

    images: ShapeSet
    resolution: int
    evaluation: int
    stages: tuple[Stage, ...]
    resumed: tuple[Stage, ...]


PLANS = {
    EMBEDDED.name: Plan(
        EMBEDDED,
        resolution=224,
        evaluation=2000,
        stages=(
            (0.10, 64, 12000, 64, 0.3, 1.7),
            (0.32, 64, 36000, 64, 1.0, 1.7),
            (0.22, 96, 16000, 64, 1.0, 1.6),
            (0.14, 144, 6000, 64, 1.0, 1.3),
            (0.22, 224, 2000, 32, 1.0, 1.0),
        ),
        resumed=((1.0, 224, 6000, 32, 1.0, 1.0),),
    ),
    HARD.name: Plan(
        HARD,
        resolution=160,
        evaluation=4000,
        stages=(
            (0.10, 64, 16000, 64, 0.3, 1.7),
            (0.45, 96, 32000, 64, 1.0, 1.65),
            (0.18, 128, 12000, 64, 1.0, 1.25),
            (0.27, 160, 8000, 48, 1.0, 1.0),
        ),
        resumed=((0.4, 128, 12000, 64, 1.0, 1.25), (0.6, 160, 8000, 48, 1.0, 1.0)),
    ),
}
RESUMED_PROGRESS = 0.65  # where a continued run enters the rate's schedule
CARRIED_PROGRESS = 0.15  # and one that begins with a checkpoint of the other set
ADAM_RATE = 2e-3
MUON_RATE = 1.5e-2
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
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


def _pool(
    images_of: ShapeSet, start: int, count: int, resolution: int, hard: float, zoom: float, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """`count` training pictures, from the cache or generated by two processes into it."""
    version = hashlib.sha256(images_of.generate("train", 48, 48)[0].tobytes()).hexdigest()[:8]
    path = cache / f"train-{version}-{resolution}-{start}-{count}-{hard}-{zoom}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        step = 1000
        if count <= step:
            images, labels = images_of.generate("train", count, resolution, start, hard, zoom)
        else:
            starts = range(start, start + count, step)
            same = (repeat(value) for value in ("train", step, resolution))
            with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
                parts = list(workers.map(images_of.generate, *same, starts, repeat(hard), repeat(zoom)))
            images, labels = (np.concatenate([part[k] for part in parts])[:count] for k in (0, 1))
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, images=images, labels=labels)
        partial.replace(path)
    with np.load(path) as stored:
        return stored["images"], stored["labels"]


def _batches(
    images: np.ndarray, labels: np.ndarray, batch: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless shuffled batches; each quarter of a batch is turned, mirrored and recoloured as one."""
    colours = list(permutations(range(3)))
    pixels, classes = torch.from_numpy(images), torch.from_numpy(labels)
    while True:
        order = torch.from_numpy(rng.permutation(len(images)))
        for begin in range(0, len(order) - batch + 1, batch):
            index = order[begin : begin + batch]
            quarters = []
            for part in pixels[index].chunk(4):
                part = torch.rot90(part, int(rng.integers(4)), (1, 2))
                if rng.integers(2):
                    part = part.flip(2)
                quarters.append(part[..., list(colours[rng.integers(6)])])
            yield torch.cat(quarters), classes[index]


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


def recalibrate_batch_norm(model: nn.Module, images: np.ndarray, mean: tuple, std: tuple) -> None:
    """Replace running statistics by their plain average over `images` at the resolution of use."""
    device = next(model.parameters()).device
    starts = range(0, len(images) - 63, 64)
    batches = (torch.from_numpy(images[begin : begin + 64]).to(device) for begin in starts)
    layers.recalibrate(model, ((normalised(pixels, mean, std),) for pixels in batches))


def _optimizers(model: nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """(optimizer, its peak rate): Muon for full convolutions, AdamW for the rest, decaying only weights."""
    matrices = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels > 3
        if module.bias is None  # with one it is squeeze-and-excitation: large matrices that gain little
    ]
    taken = {id(weight) for weight in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    decayed, plain = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    adam = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return [
        (Muon(matrices, MUON_RATE, weight_decay=WEIGHT_DECAY), MUON_RATE),
        (torch.optim.AdamW(adam, lr=ADAM_RATE, betas=(0.9, 0.98)), ADAM_RATE),
    ]


def train(
    name: str,
    minutes: float,
    cache: Path,
    teacher: nn.Module | None = None,
    teacher_input: tuple = IMAGENET,
    start: nn.Module | None = None,
    seed: int = 0,
    wall_minutes: float = float("inf"),
    plan: Plan = PLANS["embedded"],
) -> tuple[nn.Module, tuple, tuple]:
    """The trained model in eval mode, its mean and std.

    `teacher` adds distillation; `start` is a model to continue from, in the last stages. Filling
    the cache takes no time of the budget.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, mean, std = build(name, len(plan.images.figures))
    first_progress, stages = 0.0, plan.stages
    if start is not None:
        same = all(a.shape == b.shape for a, b in zip(model.parameters(), start.parameters(), strict=True))
        carry_over(model, start)
        first_progress, stages = (RESUMED_PROGRESS, plan.resumed) if same else (CARRIED_PROGRESS, stages[1:])
    model = model.to(device).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # thousands of steps, not hundreds of thousands
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the pictures never run out: there is nothing to regularise
    if teacher is not None:
        teacher = teacher.to(device).to(memory_format=torch.channels_last).eval()
    optimizers = _optimizers(model)
    average = [p.detach().clone() for p in model.parameters()]
    budget, spent, step = minutes * 60.0, 0.0, 0
    wall_began, wall_budget = time.monotonic(), wall_minutes * 60.0
    progress = first_progress
    stage, resolution, images = -1, 0, np.empty(0)
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(())
    running, seen = 0.0, 0
    while progress < 1.0:
        part = (progress - first_progress) / (1.0 - first_progress)
        total = sum(share for share, *_ in stages)
        wanted = progressive_stage(part, [share / total for share, *_ in stages])
        if wanted != stage:
            stage = wanted
            _, resolution, count, batch, hard, zoom = stages[stage]
            first = 1_000_000 * resolution + 100_000 * seed
            images, labels = _pool(plan.images, first, count, resolution, hard, zoom, cache)
            batches = _batches(images, labels, batch, rng)
        began = time.process_time()
        pixels, classes = next(batches)
        pixels, classes = pixels.to(device), classes.to(device)
        rate = cosine_rate(progress, 1.0, warmup=0.03, floor=0.005)
        for optimizer, peak in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * peak
        model.train()
        logits = model(normalised(pixels, mean, std))
        if teacher is None:
            loss = F.cross_entropy(logits, classes, label_smoothing=LABEL_SMOOTHING)
        else:
            with torch.inference_mode():
                answers = teacher(normalised(pixels, *teacher_input))
            loss = distillation_loss(logits, answers.clone(), classes, 2.0, 0.7, LABEL_SMOOTHING)
        loss.backward()
        for optimizer, _ in optimizers:
            optimizer.step()
        step += 1
        keep = min(1.0 - 1.0 / EMA_STEPS, step / (step + 10.0))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1.0 - keep)
        spent += (time.process_time() - began) / torch.get_num_threads()
        share = max(spent / budget, (time.monotonic() - wall_began) / wall_budget)
        progress = first_progress + (1.0 - first_progress) * share
        running += float((logits.argmax(1) == classes).float().mean())
        seen += 1
        if step % 50 == 0:
            print(
                f"{name} {spent / 60:5.1f} min  step {step:5d}  {resolution} px  rate {rate:.3f}  "
                f"training accuracy {running / seen:.3f}",
                flush=True,
            )
            running, seen = 0.0, 0
    with torch.no_grad():
        for parameter, mean_value in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean_value)
    recalibrate_batch_norm(model, images[:768], mean, std)
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
    parser.add_argument("--wall", type=float, help="wall-clock minutes to be done in at the latest")
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
    if options.wall:
        command += f" --wall {options.wall:g}"
    if options.threads:
        command += f" --threads {options.threads}"
        torch.set_num_threads(options.threads)
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
    model, mean, std = train(
        options.model,
        options.minutes,
        options.cache,
        teacher,
        teacher_input,
        start,
        options.seed,
        options.wall or float("inf"),
        plan,
    )
    row = save(model, options.model, mean, std, options.out, command, plan)
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
