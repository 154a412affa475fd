"""Does a board give the same answers? Its outputs against a reference's, bit by bit, both against labels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.check import read_manifest
from edgekit.bundle.names import inside
from edgekit.device.harness import Board, Harness, Task
from edgekit.device.inventory import HOST, Device
from edgekit.device.transport import open_transport
from edgekit.errors import DeviceError, InfrastructureError


@dataclass(frozen=True)
class Evaluation:
    """Inputs to run on a board.

    Args:
        inputs: one array an input of the model, (N, *shape of the input), in its dtype.
        source: what they are, e.g. "embedded evaluation, first 64".
        labels: (N,) class numbers, or None.
        expected: one array an output, (N, *shape of the output); None: this machine computes them.
        scores: the output whose largest entry is the answer; None for a task without class scores.
    """

    inputs: Sequence[np.ndarray]
    source: str
    labels: np.ndarray | None = None
    expected: Sequence[np.ndarray] | None = None
    scores: int | None = 0


def golden_evaluation(directory: str | os.PathLike[str]) -> Evaluation | None:
    """A bundle's golden vectors with the outputs they must give; None for a bundle without them."""
    root = Path(directory)
    manifest = read_manifest(root)
    if not manifest["golden"]:
        return None

    def stack(kind: str) -> list[np.ndarray]:
        rows = [
            [np.load(inside(root, name), allow_pickle=False) for name in vector[kind]]
            for vector in manifest["golden"]
        ]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    return Evaluation(
        stack("inputs"),
        f"{len(manifest['golden'])} golden vectors",
        expected=stack("outputs"),
        scores=scores_of(manifest),
    )


def scores_of(manifest: Mapping[str, Any]) -> int | None:
    """Which of a bundle's outputs holds class scores; bundles without a task are classifiers."""
    return (manifest.get("task") or {"scores": 0})["scores"]


def drift(
    harness: Harness, board: Board, path: str, local: Path, task: Task, evaluation: Evaluation
) -> dict[str, Any] | None:
    """The `drift` section of one file; None for a harness that gives no outputs.

    Raises: DeviceError when the board fails; InfrastructureError when its outputs are not what it computed.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-drift-") as folder:
        inputs = Path(folder, "inputs.npz")
        arrays: dict[str, Any] = {str(i): array for i, array in enumerate(evaluation.inputs)}
        np.savez(inputs, **arrays)
        given = harness.outputs(board, path, inputs, task, Path(folder, "board.npz"))
        if given is None:
            return None
        ours = _arrays(given.arrays)
        if evaluation.expected is not None:
            reference, name = list(evaluation.expected), evaluation.source
        else:
            reference, name = _host_outputs(harness, local, inputs, task, Path(folder, "host.npz"))
    if [a.shape for a in ours] != [b.shape for b in reference]:
        raise InfrastructureError(
            f"{board.device.id}: outputs of {[a.shape for a in ours]}: {[b.shape for b in reference]}",
            device=board.device.id,
        )
    found = compare(ours, reference, evaluation.labels, evaluation.scores)
    return found | {"source": evaluation.source, "reference": name}


def compare(
    ours: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    labels: np.ndarray | None,
    scores: int | None = 0,
) -> dict[str, Any]:
    """Identical inputs, the largest distance over every output, agreement of the top class, accuracy.

    scores: the output that holds class scores; None has no top class.
    """
    count = len(ours[0])
    same = [
        all(a[i].tobytes() == b[i].tobytes() for a, b in zip(ours, reference, strict=True))
        for i in range(count)
    ]
    pairs = list(zip(ours, reference, strict=True))
    steps = [np.abs(a.astype(np.int64) - b.astype(np.int64)).max() for a, b in pairs if a.dtype.kind in "iu"]
    shares = [
        np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-9) for a, b in pairs if a.dtype.kind == "f"
    ]
    top = [] if scores is None else [a[scores].reshape(count, -1).argmax(axis=1) for a in (ours, reference)]
    judged = labels is not None and top
    return {
        "inputs": count,
        "identical": sum(same),
        "max_lsb": int(max(steps)) if steps else None,
        "max_difference": float(max(shares)) if shares else None,
        "argmax_agreement": float((top[0] == top[1]).mean()) if top else None,
        "top1_device": float((top[0] == labels).mean()) if judged else None,
        "top1_reference": float((top[1] == labels).mean()) if judged else None,
    }


def _host_outputs(
    harness: Harness, local: Path, inputs: Path, task: Task, into: Path
) -> tuple[list[np.ndarray], str]:
    """The same script on this machine."""
    device = Device(HOST, HOST, {"type": "local"})
    with open_transport(HOST, device.transport).connect(
        f"reference-{os.getpid()}-{id(into)}", "", lock=False
    ) as transport:
        board = Board(transport, device)
        try:
            runtime = harness.check(board)
            found = harness.outputs(board, board.push(local), inputs, task, into)
        except DeviceError as error:
            raise InfrastructureError(
                f"this machine cannot compute the reference ({error}): the board's runtime here too",
                device=HOST,
            ) from error
    assert found is not None
    return _arrays(found.arrays), f"this machine, {runtime.name} {runtime.version}"


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return [content[str(i)] for i in range(len(content.files))]
