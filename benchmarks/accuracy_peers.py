"""Post-training accuracy of edgekit beside ai-edge-quantizer's, on the trained reference checkpoints.

    python -m venv .peers
    .peers/bin/pip install litert-torch==0.10.0 ai-edge-quantizer==0.10.0 torchvision timm
    python benchmarks/accuracy_peers.py --peers-python .peers/bin/python

Both tools get the same checkpoint and the same 128 calibration images of the embedded set; the answers of
their int8 files are compared with PyTorch's float logits on the evaluation images: pooled SQNR, top-1
agreement, accuracy. Robustness (see stress.py): the same network with its channels rescaled, and
calibration sets in which one image of 128 is spoiled.

Writes accuracy_peers.md and accuracy_peers.json into --out. Files of both tools are kept in --work by
content; a run that was interrupted goes on where it stopped. --quick is for plumbing: 100 images, the fast
profile only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import bars
import measure
import numpy as np
import peers
import seeded
import stress
import torch

from edgekit import zoo
from edgekit.errors import EdgekitError

POISONS = ("raw pixels", "noise")
PROFILES = ("fast", "thorough")
BATCH = 50


class Contest:
    """One reference model: its images, its float answers, and the files both tools make of it."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.model = zoo.resolve(name, "reference")
        self.module = self.model.module
        preprocessing = self.model.preprocessing
        held = measure.stored_images("calibration", options.calibration, preprocessing, options.work)
        self.calibration = np.concatenate(list(held.batches(BATCH)))
        self.evaluation = measure.stored_images("evaluation", options.images, preprocessing, options.work)
        measure.tell(f"  float answers on {len(self.evaluation)} images")
        self.reference = measure.eager_logits(self.module, self.batches)
        right = self.reference.argmax(1) == self.evaluation.labels
        self.float_accuracy = 100.0 * float(right.mean())

    def batches(self) -> Iterable[np.ndarray]:
        return self.evaluation.batches(BATCH)

    def store(self, kind: str, module: torch.nn.Module, images: np.ndarray) -> dict[str, Any]:
        """Weights and calibration images as files: the job both tools get."""
        folder = self.options.work / "accuracy" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        stem = kind.replace(" ", "_")
        weights, calibration = folder / f"{stem}.safetensors", folder / f"{stem}.npy"
        seeded.write_atomic(weights, lambda path: seeded.save_state(module, path))
        seeded.save_array(calibration, images)
        return {
            "source": self.model.source,
            "name": self.name,
            "num_classes": self.reference.shape[1],
            "weights": weights,
            "calibration": calibration,
        }

    def score(
        self, kind: str, module: torch.nn.Module, images: np.ndarray, profiles: Iterable[str]
    ) -> dict[str, Any]:
        """Both tools' int8 files of a module calibrated on `images`, against the float answers."""
        job = self.store(kind, module, images)
        scored: dict[str, Any] = {"edgekit": {}}
        for profile in profiles:
            measure.tell(f"  {kind}: edgekit {profile}")
            files = peers.edgekit_files(job | {"profile": profile}, self.options.work)
            row = self.compare(files)
            scored["edgekit"][profile] = row | {"quantize_report": files.build["quantize_report"]}
        measure.tell(f"  {kind}: peers")
        files = peers.peer_files(self.options.peers_python, job | {"layout": "default"}, self.options.work)
        scored["peer"] = self.compare(files)
        for path in (job["weights"], job["calibration"]):
            path.unlink()  # large, and rewritten in no time
        return scored

    def compare(self, files: peers.Files) -> dict[str, Any]:
        """SQNR, agreement and accuracy of an int8 file, and the seconds it took to build."""
        row = measure.compare(files.int8_path, self.batches, self.reference, self.evaluation.labels)
        return row | {"size_bytes": files.int8_path.stat().st_size, "build_s": files.build["int8_s"]}

    def rescaled(self) -> torch.nn.Module:
        """The same function with other channels' scales, proven on a few images."""
        job = self.store("copy", self.module, self.calibration[:1])
        module = seeded.load_module(self.model.source, self.name, job["num_classes"], job["weights"])
        stress.rescale_channels(module)
        few = self.evaluation.preprocessing.apply(self.evaluation.pixels(0, 8))
        with torch.inference_mode():
            error = np.abs(module(torch.from_numpy(few)).numpy() - self.reference[:8]).max()
        if not error <= 1e-3 * np.abs(self.reference[:8]).max():
            raise AssertionError(f"{self.name}: rescaling changed the function by {error:.1e}")
        return module


def measure_model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One reference model's row."""
    contest = Contest(name, options)
    profiles = ("fast",) if options.quick else PROFILES
    row = contest.score("plain", contest.module, contest.calibration, profiles)
    row |= {
        "model": name,
        "float": contest.float_accuracy,
        "weights": contest.model.weights,
        "robustness": {},
    }
    if not options.no_robustness:
        wanted = [p for p in options.robustness_profiles if p in profiles]
        row["robustness"]["rescaled"] = contest.score(
            "rescaled", contest.rescaled(), contest.calibration, wanted
        )
        given = contest.model.preprocessing
        for kind in POISONS:
            spoiled = stress.poison(contest.calibration, kind, given.mean, given.std)
            row["robustness"][kind] = contest.score(kind, contest.module, spoiled, wanted)
    return row


def markdown(rows: list[dict[str, Any]], checks: list[bars.Check], facts: dict[str, Any], about: str) -> str:
    """The tables, as they go into the README."""

    def line(model: str, what: str, figures: dict[str, Any]) -> tuple[str, ...]:
        return (
            model,
            what,
            f"{figures['sqnr_db']:.2f}",
            f"{figures['sqnr_median_db']:.2f}",
            f"{figures['sqnr_p5_db']:.2f}",
            f"{figures['agreement']:.1f}",
            f"{figures['reference']:.1f}",
            f"{figures['artifact']:.1f}",
            f"{figures['drop']:.2f} ({figures['ci_low']:.2f} to {figures['ci_high']:.2f})",
            f"{figures['build_s']:.0f}",
        )

    head = (
        "model",
        "int8 by",
        "SQNR dB",
        "median",
        "p5",
        "agree %",
        "float %",
        "int8 %",
        "drop (95 %)",
        "build s",
    )

    def lines(row: dict[str, Any], scored: dict[str, Any], label: str = "") -> list[tuple[str, ...]]:
        sides = [(f"edgekit {profile}", figures) for profile, figures in scored["edgekit"].items()]
        return [
            line(row["model"] + label, what, figures) for what, figures in (*sides, ("peers", scored["peer"]))
        ]

    plain = [cells for row in rows for cells in lines(row, row)]
    stressed = [
        cells
        for row in rows
        for kind, scored in row["robustness"].items()
        for cells in lines(row, scored, f", {kind}")
    ]
    parts = [
        "# Post-training int8 on trained networks: edgekit and ai-edge-quantizer",
        about,
        bars.table(head, plain),
    ]
    if stressed:
        parts += [
            "Robustness: channels rescaled, or one calibration image of many spoiled.",
            bars.table(head, stressed),
        ]
    parts += ["Bars:", bars.check_table(checks), measure.footer(facts)]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = measure.parser(
        __doc__ or "",
        models=list(bars.ACCURACY),
        about="reference checkpoints",
        quick="100 images, fast profile",
        images=500,
        calibration=128,
    )
    measure.add_peers_python(parser)
    parser.add_argument("--no-robustness", action="store_true", help="leave out rescaled and poisoned rows")
    parser.add_argument("--robustness-profiles", nargs="+", choices=PROFILES, default=["fast"])
    options = parser.parse_args(arguments)
    if options.quick:
        options.images = min(options.images, 100)
    try:
        facts = measure.provenance(options.peers_python)
        unfinished = measure.Unfinished(
            options.work, "accuracy_peers", measure.settings(options), peers.edgekit_sources()
        )
        rows = unfinished.rows(options.models, lambda name: measure_model(name, options))
    except (peers.BuildFailure, EdgekitError) as failure:
        print(failure, file=sys.stderr)
        return 2
    checks = [check for row in rows for check in bars.accuracy_checks(row)]
    about = (
        f"Reference checkpoints, embedded set: {options.calibration} calibration and {options.images} "
        "evaluation images at 224 px, the same for both. SQNR of the int8 logits against PyTorch's float "
        "logits, pooled over the images, and its median and 5th percentile over single images."
    )
    text = markdown(rows, checks, facts, about)
    measure.write_results(options.out, "accuracy_peers", facts, rows, checks, text)
    unfinished.clear()
    return 0


if __name__ == "__main__":
    sys.exit(main())
