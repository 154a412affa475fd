"""edgekit's TFLite files beside those of litert-torch + ai-edge-quantizer, on the same seeded networks.

    python -m venv .peers
    .peers/bin/pip install litert-torch==0.10.0 ai-edge-quantizer==0.10.0 torchvision timm
    python benchmarks/tflite_peers.py --peers-python .peers/bin/python

Both tools get the same weights and calibration images (see seeded.py). Latency: LiteRT with XNNPACK, one
thread, the four files of a network in turns in each of five fresh processes, medians. SQNR: int8 logits
against PyTorch's float logits, pooled over the images. Build seconds: from the module to the written file,
imports not counted, the two tools in turns; float seconds are part of the peers' int8 seconds, as capture
is of edgekit's.

Writes tflite_peers.md and tflite_peers.json into --out. The peers' files are kept in --work; a run that was
interrupted goes on where it stopped. --quick is for plumbing: few samples, no repeated builds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import bars
import measure
import numpy as np
import peers
import seeded

from edgekit.device.profiles import QUICK
from edgekit.pipeline.timing import latency

CALIBRATION_SEED, EVALUATION_SEED = 7, 11
FILES = ("edgekit float", "edgekit int8", "peer float", "peer int8")


def jobs(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What edgekit and the peers are asked to build."""
    folder = options.work / "seeded"
    job = {
        "source": "torchvision",
        "name": name,
        "num_classes": 1000,
        "weights": seeded.seeded_weights(name, folder),
        "calibration": seeded.seeded_images(options.calibration, CALIBRATION_SEED, folder),
    }
    return job | {"profile": options.profile}, job | {"layout": options.peer_layout}


def build_both(name: str, options: argparse.Namespace) -> tuple[peers.Files, peers.Files, dict[str, Any]]:
    """Files of both tools, and their seconds; built in turns unless --quick."""
    ours_job, theirs_job = jobs(name, options)
    repeats = 0 if options.quick else options.build_repeats if name == bars.BUILD_MODEL else 1
    runs = []
    for i in range(max(1, repeats)):
        measure.tell(f"  build {i + 1}/{max(1, repeats)}: edgekit, then the peers")
        ours = peers.edgekit_files(ours_job, options.work, fresh=repeats > 0)
        theirs = peers.peer_files(options.peers_python, theirs_job, options.work, fresh=repeats > 0)
        runs.append((ours.build, theirs.build))
    seconds: dict[str, Any] = {"same_run": repeats > 0, "repeats": repeats, "steps": ours.build["steps"]}
    for kind in ("float", "int8"):
        mine, peer = ([run[side][f"{kind}_s"] for run in runs] for side in (0, 1))
        seconds |= {
            f"edgekit_{kind}_s": statistics.median(mine),
            f"peer_{kind}_s": statistics.median(peer),
            f"{kind}_ratio": statistics.median(mine) / statistics.median(peer),
            f"{kind}_samples": {"edgekit": mine, "peer": peer},
            f"{kind}_cpu_s": {
                side: [run[i].get(f"{kind}_cpu_s") for run in runs]
                for i, side in enumerate(("edgekit", "peer"))
            },
        }
    return ours, theirs, seconds


def measure_model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network's row."""
    ours, theirs, seconds = build_both(name, options)
    paths = dict(
        zip(FILES, (ours.float_path, ours.int8_path, theirs.float_path, theirs.int8_path), strict=True)
    )
    images = np.load(seeded.seeded_images(options.images, EVALUATION_SEED, options.work / "seeded"))
    module = seeded.load_module(
        "torchvision", name, 1000, seeded.seeded_weights(name, options.work / "seeded")
    )
    measure.tell(f"  answers on {len(images)} images")

    def batches() -> Iterable[np.ndarray]:
        return np.array_split(images, max(1, len(images) // 32))

    reference = measure.eager_logits(module, batches)
    rows = {
        file: measure.describe(path) | measure.compare(path, batches, reference)
        for file, path in paths.items()
    }
    profile = QUICK if options.quick else replace(measure.LATENCY_PROFILE, processes=options.processes)
    measure.tell(f"  latency in {profile.processes} processes")
    timed = latency(paths, profile=profile, threads=options.threads)
    for file in FILES:
        rows[file]["latency"] = timed.as_dict(file) | {"machine": None}
    pairs = {
        "int8_float": ("edgekit int8", "edgekit float"),
        "int8_peer_float": ("edgekit int8", "peer float"),
        "int8_peer_int8": ("edgekit int8", "peer int8"),
        "peer_int8_float": ("peer int8", "peer float"),
        "float_peer_float": ("edgekit float", "peer float"),
    }
    intervals = {key: timed.ratio(*pair) for key, pair in pairs.items()}
    return {
        "model": name,
        "edgekit": rows["edgekit int8"],
        "edgekit_float": rows["edgekit float"],
        "peer": rows["peer int8"],
        "peer_float": rows["peer float"],
        "ratios": {key: ratio for key, (ratio, _, _) in intervals.items()},
        "ratio_intervals": {key: interval[1:] for key, interval in intervals.items()},
        "build": seconds,
        "note": timed.machine["note"],
    }


def markdown(rows: list[dict[str, Any]], checks: list[bars.Check], facts: dict[str, Any], about: str) -> str:
    """The tables, as they go into the README."""

    def ms(row: dict[str, Any], side: str) -> str:
        return f"{row[side]['latency']['p50_ms']:.2f}"

    speed = [
        (
            row["model"],
            *(ms(row, side) for side in ("edgekit_float", "edgekit", "peer_float", "peer")),
            *(f"{row['ratios'][key]:.2f}" for key in ("int8_float", "int8_peer_float", "int8_peer_int8")),
        )
        for row in rows
    ]
    quality = [
        (
            row["model"],
            *(f"{row[side]['sqnr_db']:.2f}" for side in ("edgekit", "peer")),
            *(f"{row[side]['agreement']:.1f}" for side in ("edgekit", "peer")),
            *(f"{row[side]['partitions']}" for side in ("edgekit", "peer")),
            *(f"{row[side]['transposes']}" for side in ("edgekit", "peer")),
            *(f"{row[side]['size_bytes'] / 1e6:.2f}" for side in ("edgekit", "peer")),
            *(f"{row['build'][f'{side}_int8_s']:.1f}" for side in ("edgekit", "peer")),
            *(f"{row['build'][f'{side}_float_s']:.1f}" for side in ("edgekit", "peer")),
        )
        for row in rows
    ]
    pair = ("edgekit", "peers")
    quality_head = ["model"]
    for what in ("SQNR dB", "agree %", "partitions", "TRANSPOSE", "MB", "int8 build s", "float build s"):
        quality_head += [f"{what}, {side}" for side in pair]
    speed_head = ["model", "edgekit float ms", "edgekit int8 ms", "peers' float ms", "peers' int8 ms"]
    speed_head += ["int8 / float", "int8 / peers' float", "int8 / peers' int8"]
    parts = [
        "# TFLite: edgekit and litert-torch + ai-edge-quantizer",
        about,
        bars.table(speed_head, speed),
        bars.table(quality_head, quality),
        "Bars:",
        bars.check_table(checks),
        measure.footer(facts),
        *measure.conditions(rows),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = measure.parser(
        __doc__ or "",
        models=seeded.MODELS,
        about="torchvision names",
        quick="few samples, files from the cache",
        images=128,
        calibration=32,
    )
    measure.add_peers_python(parser)
    parser.add_argument("--peer-layout", choices=("default", "channels-last"), default="default")
    parser.add_argument(
        "--profile", choices=("fast", "thorough"), default="fast", help="edgekit's quantization"
    )
    parser.add_argument("--processes", type=int, default=5, help="fresh processes a latency rests on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--build-repeats", type=int, default=3, help=f"of {bars.BUILD_MODEL}; others once")
    options = parser.parse_args(arguments)
    try:
        facts = measure.provenance(options.peers_python)
        unfinished = measure.Unfinished(
            options.work, "tflite_peers", measure.settings(options), peers.edgekit_sources()
        )
        rows = unfinished.rows(options.models, lambda name: measure_model(name, options))
    except peers.BuildFailure as failure:
        print(failure, file=sys.stderr)
        return 2
    checks = [check for row in rows for check in bars.latency_checks(row)]
    repeated = (
        "" if options.quick else f", {options.build_repeats} builds of {bars.BUILD_MODEL}, 1 of the others"
    )
    about = (
        f"Seeded networks, {options.calibration} calibration and {options.images} evaluation images at "
        f"{seeded.RESOLUTION} px; latency: {rows[0]['edgekit']['latency']['runtime']} with XNNPACK, "
        f"{options.threads} thread, batch 1, medians of {rows[0]['edgekit']['latency']['processes']} fresh "
        f"processes, files in turns{repeated}. Peers' layout: {options.peer_layout}; edgekit's quantization: "
        f"{options.profile}."
    )
    text = markdown(rows, checks, facts, about)
    measure.write_results(options.out, "tflite_peers", facts, rows, checks, text)
    unfinished.clear()
    return 0


if __name__ == "__main__":
    sys.exit(main())
