"""Every architecture at hand through the pruner's oracle: random cuts must compute what the original does.

For each model, three seeds and three ratios: that share of every group's units goes at random, the cut graph
and the original with the same channels masked where they are summed (edgekit.prune.masked) are run in
float64 on the same image, and the largest difference is taken relative to the largest answer. It counts as
exact at 1e-9, and only if the masked answer differs from the original's, so that the test says something.
Weights are seeded, batch norm statistics live, layer scales U(.5, 1.5).

`channels` is the share of the channels that convolutions and linear layers make that may go, `coverable` the
share of the parameters that some unit takes along.

One worker process a model, with a time-out, forked after the imports; results/prune_oracle.json keeps what
is done, so that a stopped run goes on.

    python benchmarks/prune_oracle.py                   # the bar, then every family
    python benchmarks/prune_oracle.py resnet18 vit_b_16  # these, printed
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import re
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import seeded

from edgekit.capture import capture
from edgekit.errors import EdgekitError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.prune import Analysis, analyse, cut, masked

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "prune_oracle.json"
PAGE = HERE / "results" / "prune_oracle.md"
SEEDS = (0, 1, 2)
RATIOS = (0.1, 0.3, 0.5)
EXACT = 1e-9
EXACT_FLOAT32 = 1e-5
MOVES = 1e-3
APART = ("not built", "not captured", "not done")
MOST_PARAMETERS = 30e6
MOST_DOUBLED = 80e6  # above, float32: memory
SECONDS = 420
BAR = [
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "googlenet",
    "inception_v3",
    "timm:mobilenetv1_100",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "mnasnet1_0",
    "timm:ghostnet_100",
    "timm:seresnet50",
    "timm:hrnet_w18_small",
    "convnext_tiny",
    "timm:deit_tiny_patch16_224",
    "swin_t",
    "timm:mobilevit_s",
]


def create(name: str) -> nn.Module:
    source, _, short = name.rpartition(":")
    if source == "timm":
        return timm.create_model(short, pretrained=False, num_classes=20).eval()
    extra = {"aux_logits": False, "init_weights": True} if short in ("googlenet", "inception_v3") else {}
    return getattr(torchvision.models, short)(weights=None, num_classes=20, **extra).eval()


def build(name: str) -> tuple[nn.Module, int]:
    """A seeded module with live statistics, and the smallest resolution at hand that it takes."""
    torch.manual_seed(0)
    module = create(name)
    own = getattr(module, "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    fixed = getattr(module, "default_cfg", {}).get("fixed_input_size", False)
    size = own
    for attempt in () if fixed else (64, 96, 128, 160, 192, 224):
        with contextlib.suppress(Exception), torch.no_grad():  # whatever a network says to small images
            module(torch.zeros(1, 3, attempt, attempt))
            size = attempt
            break
    alive(module, size)
    return module, size


def alive(module: nn.Module, size: int) -> None:
    """Weights and statistics under which every part of the network counts."""
    for path, parameter in module.named_parameters():
        scale = path.endswith(("gamma", "lambda1", "gamma1", "gamma2", "scale")) or ".ls" in path
        nought = (
            parameter.numel() > 1
            and not path.endswith("bias")
            and float(parameter.detach().abs().max()) < 1e-3
        )
        if (parameter.ndim == 1 and scale) or nought:
            nn.init.uniform_(parameter, 0.5, 1.5)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    if norms:
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for batch in range(2):
                module(torch.from_numpy(seeded.smooth_images(8, 1 + batch, size)))
        module.eval()


def doubled(graph: Graph) -> Graph:
    """The same graph in float64."""
    graph = graph.copy()
    for value in graph.constants():
        assert value.data is not None
        if value.data.is_floating_point():
            value.data = value.data.detach().double()
    return graph


def examine(name: str) -> dict[str, object]:
    """All cuts of one model."""
    began = time.perf_counter()
    try:
        module, size = build(name)
    except Exception as error:
        return {"error": f"not built: {type(error).__name__}: {error}"}
    parameters = sum(p.numel() for p in module.parameters())
    images = torch.from_numpy(seeded.smooth_images(1, 99, size))
    with torch.no_grad():
        try:
            graph = capture(module, images, name)
        except Exception as error:
            return {"error": f"not captured: {type(error).__name__}: {error}"}
        graph = doubled(graph) if parameters <= MOST_DOUBLED else graph
    del module
    found = judge(graph, [images.double() if parameters <= MOST_DOUBLED else images])
    took = round(time.perf_counter() - began, 1)
    return {
        **found,
        "bits": 64 if parameters <= MOST_DOUBLED else 32,
        "parameters": parameters,
        "resolution": size,
        "seconds": took,
    }


def coverable(analysis: Analysis) -> float:
    """The share of all parameters that some unit takes along."""
    coupling, labels = analysis.coupling, analysis.coupling.labels
    taken = {value: np.zeros(value.shape, bool) for value in analysis.graph.constants()}
    for node, weighing in coupling.weighings.items():
        weight = taken[node.operands[1]]
        np.moveaxis(weight, weighing.out_axis, -1)[...] |= labels[weighing.made] > 0
        if weighing.read is not None and len(weighing.read) == weight.shape[weighing.in_axis]:
            np.moveaxis(weight, weighing.in_axis, -1)[...] |= labels[weighing.read] > 0
    for (node, index), tag in coupling.held.items():
        value = node.inputs[index]
        if value in taken:
            taken[value] |= labels[tag] > 0
    return sum(int(mask.sum()) for mask in taken.values()) / sum(mask.size for mask in taken.values())


def open_channels(analysis: Analysis) -> float:
    """The share of the channels of convolutions and linear layers that may go."""
    made = [analysis.coupling.labels[w.made] > 0 for w in analysis.coupling.weighings.values()]
    return float(np.concatenate(made).mean()) if made else 0.0


def difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """The largest, relative to the largest answer of each output."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True)]
    if not all(bool(torch.isfinite(t).all()) for pair in pairs for t in pair):
        return float("nan")
    return max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-30)) for x, y in pairs)


def judge(graph: Graph, images: list[torch.Tensor]) -> dict[str, object]:
    began = time.perf_counter()
    analysis = analyse(graph)
    took = time.perf_counter() - began
    inputs = images
    with torch.no_grad():
        plain = run(graph, inputs)
    worst, moved, kept, choosing = 0.0, float("inf"), [], 0.0
    total = sum(v.data.numel() for v in graph.constants())
    for seed in SEEDS:
        for ratio in RATIOS:
            drawn = random.Random(seed * 1000 + int(ratio * 100))
            scores = {unit: drawn.random() for unit in analysis.units}
            remove = {
                g.name: int(len(g.units) * ratio)
                for g in analysis.groups
                if not g.name.endswith("(whole)") or seed == 2
            }
            began = time.perf_counter()
            gone = analysis.allowed(scores, remove)
            choosing = max(choosing, time.perf_counter() - began)
            smaller = cut(analysis, gone)
            with torch.no_grad():
                expected, found = masked(analysis, gone)(inputs), run(smaller, inputs)
            worst = max(worst, difference(expected, found))
            moved = min(moved, difference(expected, plain))
            kept.append(sum(v.data.numel() for v in smaller.constants()) / total)
    return {
        "worst": worst,
        "moved": moved,
        "kept": round(float(np.mean(kept)), 3),
        "units": len(analysis.units),
        "groups": len(analysis.groups),
        "channels": round(open_channels(analysis), 3),
        "coverable": round(coverable(analysis), 3),
        "closed": [[c.name, c.channels, c.reason] for c in analysis.closed],
        "analysis_s": round(took, 3),
        "choosing_s": round(choosing, 2),
    }


def family(name: str) -> str:
    return re.sub(r"\d.*$", "", name)


def size_of(name: str) -> float:
    """Parameters, as torchvision lists them or as a module without memory has them."""
    if not name.startswith("timm:"):
        return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in create(name).parameters())
    except Exception:  # needs memory to be made: its worker says how large it is
        return MOST_PARAMETERS


def names() -> list[str]:
    """The models of torchvision's and timm's classifiers up to 30 M that are asked, in order.

    The 24 of the bar, then the smallest of each architecture (a file of timm's), of each family (the name up
    to its first digit), and the largest of each family.
    """
    listed = torchvision.models.list_models(module=torchvision.models)
    every = [*listed, *(f"timm:{name}" for name in timm.list_models())]
    sizes = {name: size for name in every if (size := size_of(name)) <= MOST_PARAMETERS}
    ranked = sorted(sizes, key=lambda name: (sizes[name], name))
    architectures: dict[str, str] = {}
    families: dict[str, list[str]] = {}
    for name in ranked:
        architectures.setdefault(architecture(name), name)
        families.setdefault(family(name), []).append(name)
    smallest, largest = ([members[k] for members in families.values()] for k in (0, -1))
    return list(dict.fromkeys([*BAR, *architectures.values(), *smallest, *largest]))


def architecture(name: str) -> str:
    return timm.models.model_entrypoint(name[5:]).__module__ if name.startswith("timm:") else family(name)


def worker(name: str, sender: Connection) -> None:
    """Examine one model; what goes wrong is an answer too."""
    try:
        result = examine(name)
    except EdgekitError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    sender.send(result)


def ask(name: str) -> dict[str, object]:
    """One model in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=worker, args=(name, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(SECONDS) else {"error": f"not done in {SECONDS} s"}
    except EOFError:
        return {"error": "not done: killed"}
    finally:
        process.kill()
        process.join()


def recorded(result: dict) -> dict:
    """What the table needs: of what is closed, the channels of each kind of reason."""
    kinds: dict[str, int] = {}
    for _, channels, reason in result.get("closed", []):
        kind = re.sub(r" at \S+", "", reason)
        kinds[kind] = kinds.get(kind, 0) + channels
    return {k: v for k, v in result.items() if k not in ("trace", "closed")} | {"closed": kinds}


def verdict(result: dict) -> str:
    """exact | wrong: how much | says nothing: how little | refused, failed, not captured, not done: why."""
    if "error" in result:
        text = " ".join(str(result["error"]).split())
        kind = "refused: " if "[prune]" in text else "" if text.startswith("not ") else "failed: "
        return kind + text
    if not result["worst"] <= (EXACT if result.get("bits", 64) == 64 else EXACT_FLOAT32):
        return f"wrong: {result['worst']:.1e}"
    if not result["moved"] > MOVES:
        return f"says nothing: the answer moves by {result['moved']:.0e}"
    return "exact"


def page(results: dict[str, dict], asked: int) -> str:
    """The table, the figures first."""
    verdicts = {name: verdict(result) for name, result in results.items()}
    apart = {kind: sum(v.startswith(kind) for v in verdicts.values()) for kind in APART}
    captured = {name: v for name, v in verdicts.items() if not v.startswith(APART)}
    exact = [name for name, v in captured.items() if v == "exact"]
    wrong = [name for name, v in captured.items() if v.startswith("wrong")]
    lines = [
        "# Cuts against the masked original",
        "",
        f"{len(results)} of {asked} models done: the 24 of the bar and families up to 30 M parameters. "
        f"{len(captured)} captured: "
        f"{len(exact)} exact ({len(exact) / max(len(captured), 1):.1%}), {len(wrong)} silently wrong. Apart: "
        f"{', '.join(f'{count} {kind}' for kind, count in apart.items())}. "
        f"{len(SEEDS)} seeds x ratios {', '.join(map(str, RATIOS))}; `python benchmarks/prune_oracle.py`.",
        "",
        "| model | parameters | pixels | verdict | worst | answer moves | channels open | parameters "
        "coverable | kept | units | analysis |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in sorted(results.items(), key=lambda item: (verdicts[item[0]] == "exact", item[0])):
        if "error" in result:
            lines.append(f"| {name} | | | {verdicts[name][:300].replace('|', '/')} | | | | | | | |")
            continue
        lines.append(
            f"| {name} | {result['parameters'] / 1e6:.1f} M | {result['resolution']} | {verdicts[name]} | "
            f"{result['worst']:.0e} | {result['moved']:.2f} | {result['channels']:.0%} | "
            f"{result['coverable']:.0%} | {result['kept']:.2f} | {result['units']} | "
            f"{result['analysis_s']:.2f} s |"
        )
    reasons: dict[str, int] = {}
    for result in results.values():
        for kind, channels in result["closed"].items():
            reasons[kind] = reasons.get(kind, 0) + channels
    lines += ["", "Why channels stay, over all models:", "", "| reason | channels |", "|---|---|"]
    lines += [f"| {kind} | {count} |" for kind, count in sorted(reasons.items(), key=lambda item: -item[1])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bar", action="store_true", help="the 24 that must be exact")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if given.names:
        for name in given.names:
            result = ask(name)
            print(result.pop("trace", ""), end="")
            closed = result.pop("closed", [])
            print(name, json.dumps(result), *(closed if len(given.names) == 1 else []), sep="\n   ")
        return
    state = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"names": [], "models": {}}
    if not (given.bar or state["names"]):
        state["names"] = names()
    results = state["models"]
    asked = state["names"] or BAR
    for name in asked:
        if name not in results:
            results[name] = recorded(ask(name))
            print(name, verdict(results[name]), flush=True)
            seeded.write_atomic(RESULTS, lambda path: path.write_text(json.dumps(state, indent=0)))
            PAGE.write_text(page(results, len(asked)))
    PAGE.write_text(page(results, len(asked)))


if __name__ == "__main__":
    main()
