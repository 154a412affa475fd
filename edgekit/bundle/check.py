"""Prove a bundle: its files are the ones that were written, and its golden vectors still come true.

What an app's own test does with the same files; here any runner and any preprocessing can be put in.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.names import inside
from edgekit.bundle.write import ANSWERS, MANIFEST, MANIFEST_VERSION, TOP5, answers, top5
from edgekit.errors import ArtifactError

Runner = Callable[[Path, list[np.ndarray]], Sequence[np.ndarray]]
Preprocess = Callable[[np.ndarray, dict[str, Any]], np.ndarray]
FLOAT_TOLERANCE = 1e-4


@dataclass
class BundleCheck:
    """What was checked and what is wrong, one line each; `ok` when nothing is.

    `input_lsb` and `output_lsb` hold the largest difference of each vector: steps for integers, for floats
    the difference over the largest value.
    """

    manifest: dict[str, Any]
    files: int = 0
    vectors: int = 0
    problems: list[str] = field(default_factory=list)
    input_lsb: list[float] = field(default_factory=list)
    output_lsb: list[float] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """manifest.json of a bundle. Raises: ArtifactError when there is none that can be read."""
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}: a directory written by edgekit build") from error
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON: a manifest written by edgekit build") from error
    if not isinstance(manifest, dict) or manifest.get("manifest_version") != MANIFEST_VERSION:
        raise ArtifactError(f"{path}: not a manifest of version {MANIFEST_VERSION}: rebuild the bundle")
    missing = [k for k in ("file", "sha256", "inputs", "outputs", "files", "golden") if k not in manifest]
    if missing:
        raise ArtifactError(f"{path}: without {', '.join(missing)}: a manifest written by edgekit build")
    return manifest


def check_bundle(
    directory: str | os.PathLike[str],
    runner: Runner | None = None,
    preprocess: Preprocess | None = None,
    *,
    max_lsb: float = 0,
) -> BundleCheck:
    """Check every hash, and what golden vectors can be checked with what is given.

    Args:
        runner: (model file, input tensors) -> output tensors, dtypes as in the manifest.
        preprocess: (uint8 (H, W, 3) picture, manifest) -> the first input tensor.
        max_lsb: allowed difference of integer tensors, in steps.
    Raises: ArtifactError when there is no manifest that can be read.
    """
    check = _Check(Path(directory), runner, preprocess, max_lsb)
    check.files()
    check.labels()
    if check.result.ok:
        check.vectors()
    return check.result


class _Check:
    """One check in progress: the files read so far and what was found."""

    def __init__(
        self, root: Path, runner: Runner | None, preprocess: Preprocess | None, max_lsb: float
    ) -> None:
        self.root, self.runner, self.preprocess, self.max_lsb = root, runner, preprocess, max_lsb
        self.manifest = read_manifest(root)
        self.result = BundleCheck(self.manifest)
        self.contents: dict[str, bytes] = {}
        self.names: list[str] | None = None

    def wrong(self, problem: str) -> None:
        self.result.problems.append(problem)

    def files(self) -> None:
        for name, expected in self.manifest["files"].items():
            try:
                data = inside(self.root, name).read_bytes()
            except ArtifactError as error:
                self.wrong(str(error))
                continue
            except OSError as error:
                self.wrong(f"{name}: {error.strerror}")
                continue
            self.contents[name] = data
            self.result.files += 1
            if hashlib.sha256(data).hexdigest() != expected:
                self.wrong(f"{name}: its sha256 is not the manifest's: the file was changed")
        model = self.contents.get(self.manifest["file"])
        if model is None:
            self.wrong(f"{self.manifest['file']}: the model is not among the manifest's files")
        elif hashlib.sha256(model).hexdigest() != self.manifest["sha256"]:
            self.wrong(f"{self.manifest['file']}: not the model the manifest names")

    def labels(self) -> None:
        about = self.manifest.get("labels")
        if not about or about["file"] not in self.contents:
            return
        self.names = self.contents[about["file"]].decode().split("\n")[:-1]
        if len(self.names) != about["count"]:
            self.wrong(f"{about['file']}: {len(self.names)} lines: {about['count']}, one a class")

    def vectors(self) -> None:
        scores = (self.manifest.get("task") or {"scores": 0})["scores"]
        told = TOP5 if scores is not None else ANSWERS
        rows = json.loads(self.contents[told]) if self.manifest["golden"] else []
        for i, (vector, row) in enumerate(zip(self.manifest["golden"], rows, strict=True)):
            inputs = [self._array(name) for name in vector["inputs"]]
            outputs = [self._array(name) for name in vector["outputs"]]
            self.result.vectors += 1
            if self.preprocess is not None and vector["image"]:
                made = np.asarray(self.preprocess(self._picture(vector["image"]), self.manifest))
                distance = _distance(made, inputs[0])
                self.result.input_lsb.append(distance)
                self._judge(f"golden vector {i}: preprocessing", distance, inputs[0].dtype)
            if self.runner is not None:
                given = list(self.runner(inside(self.root, self.manifest["file"]), inputs))
                distance = _farthest(given, outputs)
                self.result.output_lsb.append(distance)
                self._judge(f"golden vector {i}: output", distance, outputs[0].dtype)
            gives = self.manifest["outputs"]
            if scores is None:
                follows = answers(outputs, gives) == row["outputs"]
            else:
                follows = top5(outputs[scores], gives[scores], self.names) == row["top5"]
            if not follows:
                self.wrong(f"golden vector {i}: {Path(told).name} does not follow from its output tensor")

    def _array(self, name: str) -> np.ndarray:
        return np.load(io.BytesIO(self.contents[name]), allow_pickle=False)

    def _picture(self, name: str) -> np.ndarray:
        from PIL import Image

        with Image.open(io.BytesIO(self.contents[name])) as image:
            return np.asarray(image.convert("RGB"))

    def _judge(self, where: str, distance: float, dtype: np.dtype) -> None:
        whole = np.issubdtype(dtype, np.integer)
        limit, unit = (self.max_lsb, "LSB") if whole else (FLOAT_TOLERANCE, "of the largest value")
        if not distance <= limit:
            self.wrong(f"{where} is {distance:.3g} {unit} away: at most {limit:g}")


def _farthest(given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    if len(given) != len(expected):
        return float("inf")
    return max(_distance(np.asarray(a), b) for a, b in zip(given, expected, strict=True))


def _distance(ours: np.ndarray, expected: np.ndarray) -> float:
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    difference = np.abs(ours.astype(np.float64) - expected.astype(np.float64))
    if np.issubdtype(expected.dtype, np.integer):
        return float(difference.max())
    return float(difference.max() / max(float(np.abs(expected).max()), 1e-9))
