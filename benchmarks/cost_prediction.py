"""How well the times of units add up: predicted against measured p50 on this machine -> results/*.md.

    python benchmarks/cost_prediction.py [--target tflite-int8] [--models a,b] [--cache DIR] [--again]

Four questions, answered with the table that `edgekit cost measure` would keep:

whole      twenty networks: the sum of their units times one constant, which is the median over the *other*
           nineteen, against their p50
variants   width variants of measured networks, whose units are not in the table: forms, and the constant of
           the original
repeats    every unit of three networks timed again in other processes
A/A        one file under two names, with a second process loading another core

Weights and scales stand in for trained ones: time does not depend on them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgekit.capture import capture
from edgekit.cost.measure import Model, measure
from edgekit.cost.models import of_graph
from edgekit.cost.predict import Cost, cost_for
from edgekit.cost.table import Table
from edgekit.cost.widths import narrower
from edgekit.device.host import machine
from edgekit.device.inventory import HOST, Device, load_inventory
from edgekit.graph.ir import Graph
from edgekit.targets import get_target
from edgekit.zoo import resolve

NETWORKS = (
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_lite0",
    "mnasnet1_0", "shufflenet_v2_x1_0", "resnet18", "resnet50", "resnext50_32x4d", "regnet_y_400mf",
    "regnet_x_400mf", "squeezenet1_1", "googlenet", "densenet121", "ghostnet_100", "mobilenetv4_conv_small",
    "fbnetc_100", "mixnet_s", "tinynet_a",
)  # fmt: skip
REPEATED = ("mobilenet_v2", "mobilenet_v3_large", "resnet18")
RESULT = Path(__file__).parent / "results" / "cost_prediction.md"


def _variants() -> dict[str, list[tuple[str, Callable[[], torch.nn.Module]]]]:
    """Original -> its width variants."""
    from torchvision.models import mnasnet, resnet, shufflenetv2
    from torchvision.models.mobilenetv2 import MobileNetV2

    def thin_resnet(width: int) -> torch.nn.Module:
        net = resnet.resnet18()
        net.inplanes = width
        net.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        net.bn1 = torch.nn.BatchNorm2d(width)
        for i in range(4):
            stride = 1 if i == 0 else 2
            setattr(net, f"layer{i + 1}", net._make_layer(resnet.BasicBlock, width << i, 2, stride))
        net.fc = torch.nn.Linear(width << 3, 1000)
        return net

    def thin_shufflenet(wide: list[int]) -> torch.nn.Module:
        return shufflenetv2.ShuffleNetV2([4, 8, 4], wide)

    return {
        "mobilenet_v2": [(f"x{w}", lambda w=w: MobileNetV2(width_mult=w)) for w in (0.35, 0.5, 0.75, 1.3)],
        "mnasnet1_0": [(f"x{w}", lambda w=w: mnasnet.MNASNet(w)) for w in (0.5, 0.75, 1.3)],
        "shufflenet_v2_x1_0": [
            ("x0.5", lambda: thin_shufflenet([24, 48, 96, 192, 1024])),
            ("x1.5", lambda: thin_shufflenet([24, 176, 352, 704, 1024])),
        ],
        "resnet18": [(f"width {w}", lambda w=w: thin_resnet(w)) for w in (24, 40, 52)],
    }


def captured(module: torch.nn.Module, side: int = 224) -> Graph:
    return capture(module.eval(), torch.rand(1, 3, side, side))


def network(name: str, target: str) -> tuple[Graph, Model]:
    found = resolve(name, "random")
    graph = capture(found.module, torch.rand(found.input_shape))
    return graph, of_graph(name, graph, target)


@contextmanager
def loaded() -> Iterator[None]:
    """Another process keeps a core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _spin() -> None:
    numbers = np.ones(1 << 16)
    while True:
        numbers = np.sqrt(numbers + 1.0)


def whole_models(device: Device, names: list[str], target: str, root: Path) -> tuple[list[str], Table]:
    """Twenty networks, the constant of each from the others."""
    table, seconds, rows = None, {}, []
    for name in names:
        _, model = network(name, target)
        began = time.perf_counter()
        table = measure(device, [], model.units, root=root)
        seconds[name] = time.perf_counter() - began
        table = measure(device, [model], root=root)
        print(f"{name}: {table.models[name]} {seconds[name]:.1f} s", flush=True)
    assert table is not None
    ratios = {name: table.models[name].p50_ms / table.models[name].units_ms for name in names}
    errors = []
    for name in names:
        constant = statistics.median(ratio for other, ratio in ratios.items() if other != name)
        whole = table.models[name]
        predicted = whole.units_ms * constant
        errors.append(abs(predicted / whole.p50_ms - 1))
        rows.append(
            f"| {name} | {whole.p50_ms:.3f} | {predicted:.3f} | {predicted / whole.p50_ms - 1:+.1%} "
            f"| {seconds[name]:.1f} |"
        )
    head = [
        f"Constant {statistics.median(ratios.values()):.3f}. Leave-one-out error: mean "
        f"**{np.mean(errors):.1%}**, 90 % {np.quantile(errors, 0.9):.1%}, largest **{max(errors):.1%}**. "
        f"Seconds for own units: median {statistics.median(seconds.values()):.1f}.",
        "",
        "| network | p50 ms | predicted | error | s for own units |",
        "|---|---|---|---|---|",
    ]
    return head + rows, table


def width_variants(device: Device, target: str, root: Path) -> list[str]:
    """Variants predicted by forms and the original's constant, then measured."""
    rows, errors = [], []
    for name, variants in _variants().items():
        graph, model = network(name, target)
        table = measure(device, [model], narrower(model.units, 2), root=root)
        cost = Cost(table, get_target(target)).calibrate(graph, table.models[name].p50_ms)
        for width, build in variants:
            thin = captured(build())
            began = time.perf_counter()
            predicted = cost.graph_ms(thin)
            took = time.perf_counter() - began
            units = cost.units(thin)
            fitted = sum(unit.ms for unit in units if unit.how != "measured") / predicted
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder)
                shutil.copytree(root, copy, dirs_exist_ok=True)
                variant = of_graph(f"{name} {width}", thin, target)
                got = measure(device, [replace(variant, units=())], root=copy, again=True)
            p50 = got.models[variant.name].p50_ms
            errors.append(abs(predicted / p50 - 1))
            rows.append(
                f"| {name} {width} | {p50:.3f} | {predicted:.3f} | {predicted / p50 - 1:+.1%} | {fitted:.0%} "
                f"| {took * 1e3:.0f} |"
            )
            print(rows[-1], flush=True)
    return [
        f"Mean error **{np.mean(errors):.1%}**, largest **{max(errors):.1%}**.",
        "",
        "| variant | p50 ms | predicted | error | of it in fitted units | ms to predict |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def repeats(device: Device, target: str, root: Path) -> list[str]:
    """Units again, in other processes, at the clock of the same reference."""
    ratios = []
    for name in REPEATED:
        _, model = network(name, target)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder)
            shutil.copytree(root, copy, dirs_exist_ok=True)
            first = measure(device, [], model.units, root=copy, again=True)
            before = {unit.key: first.units[unit.key].ns for unit in model.units}
            second = measure(device, [], model.units, root=copy, again=True)
            ratios += [second.units[key].ns / max(ns, 1.0) - 1 for key, ns in before.items()]
    apart = np.abs(ratios)
    return [
        f"{len(apart)} units of {', '.join(REPEATED)}: median **{np.median(apart):.1%}**, 90 % "
        f"**{np.quantile(apart, 0.9):.1%}**, largest {apart.max():.0%}."
    ]


def same_twice(device: Device, target: str, root: Path) -> list[str]:
    """One file under two names."""
    rows = []
    _, model = network("mobilenet_v3_large", target)
    for words, load in (("idle", None), ("a second process busy", loaded)):
        apart = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder)
                shutil.copytree(root, copy, dirs_exist_ok=True)
                pair = [replace(model, name=name, units=()) for name in ("A", "A again")]
                if load is None:
                    table = measure(device, pair, root=copy)
                else:
                    with load():
                        table = measure(device, pair, root=copy)
            apart.append(table.models["A again"].p50_ms / table.models["A"].p50_ms - 1)
        rows.append(f"| {words} | {', '.join(f'{ratio:+.1%}' for ratio in apart)} |")
    return ["| the other core | second name over first, three times |", "|---|---|", *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default="tflite-int8")
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = given.cache or Path(tempfile.mkdtemp(prefix="edgekit-cost-"))
    device = load_inventory().device(HOST)
    about = machine()
    whole, table = whole_models(device, given.models.split(","), given.target, root)
    lines = [
        "# Predicted against measured",
        "",
        f"`python benchmarks/cost_prediction.py --target {given.target}`: {about['cpu']}, {about['cores']} "
        f"cores, {table.runtime} {table.version}, one thread, load {about['load']} when it began. Times are "
        "at the clock of the first session, as the reference beside each tells.",
        "",
        "## Whole models, one constant from the others",
        "",
        *whole,
        "",
        "## Width variants, their units from forms, the constant of the original",
        "",
        *width_variants(device, given.target, root),
        "",
        "## The same units again",
        "",
        *repeats(device, given.target, root),
        "",
        "## The same file under two names",
        "",
        *same_twice(device, given.target, root),
        "",
    ]
    assert cost_for(HOST, given.target, cache=root).table.fingerprint == table.fingerprint
    given.out.write_text("\n".join(lines))
    print(given.out)


if __name__ == "__main__":
    main()
