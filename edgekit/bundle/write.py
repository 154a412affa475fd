"""Write a bundle: bytes, arrays and facts in, a whole directory out.

The files are written into a directory beside the final one, which then takes its place by two renames: a
reader sees the old bundle, for an instant none, or the new one, and never a mixture. The card and the extras
are not in the manifest's list of hashes, because they hold times; everything that is listed is the same bytes
in every rebuild.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.names import inside, one_line
from edgekit.bundle.preprocessing import quantization, steps
from edgekit.errors import ArtifactError, StoreError
from edgekit.files import storage_errors

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
CARD = "MODEL_CARD.md"
TOP5, ANSWERS = "golden/top5.json", "golden/answers.json"
_ATTEMPTS = 5


def write_bundle(
    directory: str | os.PathLike[str],
    *,
    model: Mapping[str, bytes],
    name: str,
    target: str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    edgekit_version: str,
    signature: str = "serving_default",
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    task: Mapping[str, Any] | None = None,
    scores: int | None = 0,
    golden: Sequence[Mapping[str, Any]] = (),
    calibration: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    graph_hash: str | None = None,
    min_runtime_version: str | None = None,
    rejected: bool = False,
    card: str | Callable[[dict[str, Any]], str] | None = None,
    extra: Mapping[str, bytes | str] | None = None,
) -> dict[str, Any]:
    """Write a bundle and return its manifest.

    Args:
        directory: made, or replaced when it holds an earlier bundle or nothing.
        model: the model's files by relative name, the one to load first, the rest beside it (weights); a
            rejected one says so in its names.
        inputs, outputs: name, shape (-1: open), dtype, for integers scale and zero_point, and for pictures
            and maps the layout ("NHWC"), in the model's order.
        preprocessing: resolution, resize, interpolation, mean, std.
        labels: class names; line i of labels.txt is output i.
        task: what the outputs mean: its name and the outputs' names.
        scores: the output that holds class scores, for golden/top5.json; None: golden/answers.json says what
            the numbers of every output are instead.
        golden: {"image": uint8 (H, W, 3) or absent, "inputs": arrays, "outputs": arrays}, as the model
            takes and gives them.
        calibration: name, n and sha256 of the images.
        min_runtime_version: the oldest runtime that runs the model right; None where it is not known.
        card: the text of MODEL_CARD.md, or a function of the manifest.
        extra: further files by relative name, kept beside the bundle and left out of the manifest.
    Raises: StoreError when the directory holds something else or cannot be written; ArtifactError for a
        golden vector that does not fit the model or a name that leaves the directory.
    """
    takes, gives = [_tensor(t) for t in inputs], [_tensor(t) for t in outputs]
    settings = dict(preprocessing) if preprocessing is not None else None
    named = {rejected_name(path) if rejected else path: data for path, data in model.items()}
    file = next(iter(named))
    files: dict[str, bytes] = dict(named)
    if labels is not None:
        files["labels.txt"] = "".join(f"{one_line(label)}\n" for label in labels).encode()
    vectors = [_vector(i, vector, takes, gives, files) for i, vector in enumerate(golden)]
    if vectors and scores is not None:
        tops = [
            {"vector": i, "top5": top5(vector["outputs"][scores], gives[scores], labels)}
            for i, vector in enumerate(golden)
        ]
        files[TOP5] = _json(tops)
    elif vectors:
        files[ANSWERS] = _json(
            [{"vector": i, "outputs": answers(v["outputs"], gives)} for i, v in enumerate(golden)]
        )
    manifest = {
        "manifest_version": MANIFEST_VERSION,
        "name": name,
        "target": target,
        "verdict": "rejected" if rejected else "passed",
        "file": file,
        "sha256": hashlib.sha256(named[file]).hexdigest(),
        "size_bytes": sum(map(len, named.values())),
        "signature": signature,
        "inputs": takes,
        "outputs": gives,
        "preprocessing": {"settings": settings, "steps": _steps(settings, takes)},
        "task": {**task, "scores": scores} if task is not None else None,
        "labels": {"file": "labels.txt", "count": len(labels)} if labels is not None else None,
        "calibration": dict(calibration) if calibration is not None else None,
        "weights": dict(weights) if weights is not None else None,
        "edgekit_version": edgekit_version,
        "min_runtime_version": min_runtime_version,
        "recipe": dict(recipe) if recipe is not None else None,
        "graph_hash": graph_hash,
        "golden": vectors,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }
    files[MANIFEST] = _json(manifest)
    text = card(manifest) if callable(card) else card
    if text is not None:
        files[CARD] = text.encode("utf-8", "backslashreplace")
    for path, data in (extra or {}).items():
        if path in files:
            raise ArtifactError(f"{directory}: extra file {path!r}: a name the bundle does not use itself")
        files[path] = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace")
    _place(Path(directory), files)
    return manifest


def _steps(settings: dict[str, Any] | None, takes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What to do with a picture, the first input, and with the numbers of every further one."""
    further = [step for t in takes[1:] for step in quantization(t, f"Input {t['name']}: ")]
    return steps(settings, takes[0]) + further


def rejected_name(path: str) -> str:
    """The name of a model file that a gate rejected: model.xml -> model.rejected.xml."""
    first, slash, rest = path.partition("/")
    stem, dot, suffix = first.rpartition(".")
    return (f"{stem}.rejected.{suffix}" if dot else f"{first}.rejected") + slash + rest


def top5(
    output: np.ndarray, tensor: Mapping[str, Any], labels: Sequence[str] | None, count: int = 5
) -> list[dict[str, Any]]:
    """The highest outputs: index, label, and the real value; of equal ones the lower index comes first."""
    values = _reals(output, tensor)
    order = np.argsort(-values, kind="stable")[:count]
    return [
        {
            "index": int(i),
            "label": one_line(labels[i]) if labels is not None and i < len(labels) else None,
            "value": round(float(values[i]), 6),
        }
        for i in order
    ]


def answers(outputs: Sequence[np.ndarray], tensors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each output its shape and its smallest, largest and mean real value."""
    found = []
    for output, tensor in zip(outputs, tensors, strict=True):
        values = _reals(output, tensor)
        figures = {"min": values.min(), "max": values.max(), "mean": values.mean()} if values.size else {}
        rounded = {name: round(float(value), 6) for name, value in figures.items()}
        found.append({"name": tensor["name"], "shape": list(np.shape(output)), **rounded})
    return found


def _reals(output: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    values = np.asarray(output).reshape(-1).astype(np.float64)
    if tensor.get("scale") is not None:
        values = (values - tensor["zero_point"]) * tensor["scale"]
    return values


def _tensor(tensor: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("name", "shape", "dtype") if key not in tensor]
    if missing:
        raise ArtifactError(f"bundle: a tensor without {', '.join(missing)}: name, shape and dtype")
    scale, zero_point = tensor.get("scale"), tensor.get("zero_point")
    return {
        "name": str(tensor["name"]),
        "shape": [int(n) for n in tensor["shape"]],
        "dtype": str(tensor["dtype"]),
        "scale": None if scale is None else float(scale),
        "zero_point": None if scale is None else int(zero_point or 0),
        **({"layout": str(tensor["layout"])} if tensor.get("layout") else {}),
    }


def _vector(
    i: int,
    vector: Mapping[str, Any],
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    files: dict[str, bytes],
) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": None, "inputs": [], "outputs": []}
    image = vector.get("image")
    if image is not None:
        entry["image"] = f"golden/{i}_image.png"
        files[entry["image"]] = _png(np.asarray(image), i)
    for kind, tensors in (("inputs", inputs), ("outputs", outputs)):
        arrays = [np.asarray(array) for array in vector[kind]]
        if len(arrays) != len(tensors):
            raise ArtifactError(f"golden vector {i}: {len(arrays)} {kind}: {len(tensors)}, one a tensor")
        for k, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
            if str(array.dtype) != tensor["dtype"] or not _fits(array.shape, tensor["shape"]):
                raise ArtifactError(
                    f"golden vector {i}: {kind[:-1]} {tensor['name']} is {array.dtype} {list(array.shape)}: "
                    f"{tensor['dtype']} {tensor['shape']}"
                )
            path = f"golden/{i}_{kind[:-1]}{k if k else ''}.npy"
            stream = io.BytesIO()
            np.save(stream, np.asarray(array, order="C"), allow_pickle=False)
            files[path] = stream.getvalue()
            entry[kind].append(path)
    return entry


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is the one the model takes, where -1 takes any size."""
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))


def _png(image: np.ndarray, i: int) -> bytes:
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ArtifactError(f"golden vector {i}: image is {image.dtype} {image.shape}: uint8 (H, W, 3)")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _json(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes JSON's own escape of it


def _place(directory: Path, files: Mapping[str, bytes]) -> None:
    """Fill a directory beside `directory`, then put it in its place."""
    _refuse_foreign(directory)
    with storage_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        try:
            for name, data in files.items():
                path = inside(temporary, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o755)
            _swap(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Rename `new` to `place`; what stood there goes. Another build may do the same at the same time."""
    old = new.with_name(f"{new.name}.old")
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            os.rename(place, old)
        try:
            os.rename(new, place)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                if old.exists():
                    os.rename(old, place)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise StoreError(f"{place}: another build keeps writing here: give each its own --out")


def _refuse_foreign(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise StoreError(f"{directory}: not a directory: a new or empty directory, or an earlier bundle")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    try:
        known = json.loads((directory / MANIFEST).read_bytes())["manifest_version"] >= 1
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise StoreError(f"{directory}: holds files of something else: a new or empty directory")
