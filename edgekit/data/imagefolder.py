"""Pictures on disk, one folder a class: PATH/<class>/*.jpg, or PATH/<split>/<class>/*.jpg where splits exist.

In: a path, a split and how many. Out: the class names, and (path, label) of the chosen files; nothing is
decoded here. Without split folders the files are divided by a hash of class and file name: 80 % train, 10 %
calibration, 10 % evaluation, the same on every machine and unchanged by other files coming or going.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekit.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# What a split's own folder may be called, best first; calibration may borrow from training pictures.
SPLIT_FOLDERS = {
    "train": ("train",),
    "calibration": ("calibration", "train"),
    "evaluation": ("evaluation", "val", "validation", "test"),
}
_KNOWN_FOLDERS = frozenset(name for names in SPLIT_FOLDERS.values() for name in names)


def _digest(relative: str) -> int:
    return int.from_bytes(hashlib.sha256(relative.encode()).digest()[:8], "big")


def _split_of(relative: str) -> str:
    """The split a file belongs to when no folders say so."""
    tenth = _digest(relative) % 10
    return "evaluation" if tenth == 0 else "calibration" if tenth == 1 else "train"


def _class_folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)


def choose_files(path: str | Path, split: str, count: int) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Class names and at most `count` (file, label) pairs of `split`, classes taken in turn.

    Raises:
        DataError: no such folder, no class folders, no pictures, or none left for this split.
    """
    root = Path(path).expanduser()
    where = f"imagefolder:{path}"
    accepted = f"PATH/<class>/*{'|'.join(SUFFIXES)}"
    if split not in SPLIT_FOLDERS:
        raise DataError(f"{where}: there is no split '{split}': use one of {', '.join(SPLIT_FOLDERS)}")
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{where}: {what}: a folder laid out as {accepted}")
    folders = _class_folders(root)
    by_folder = bool(folders) and all(p.name in _KNOWN_FOLDERS for p in folders)
    borrowed = False
    names = [p.name for p in folders]
    if by_folder:
        # One numbering for all splits, even if a class is missing from one of them.
        names = sorted({c.name for split_folder in folders for c in _class_folders(split_folder)})
        found = next((n for n in SPLIT_FOLDERS[split] if (root / n).is_dir()), None)
        if found is None:
            raise DataError(
                f"{where}: no folder for the {split} split among {', '.join(p.name for p in folders)}: "
                f"add {' or '.join(SPLIT_FOLDERS[split])}/<class>/*"
            )
        # Calibration borrows a tenth of train/, which training then leaves alone.
        borrowed = found == "train" and not (root / "calibration").is_dir()
        root = root / found
        folders = _class_folders(root)
    if not folders:
        loose = "pictures but no class folders" if _pictures(root) else "no class folders"
        raise DataError(f"{where}: {root} holds {loose}: {accepted}")
    per_class: list[list[Path]] = []
    total = 0
    for folder in (root / name for name in names):
        files = _pictures(folder) if folder.is_dir() else []
        total += len(files)
        if not by_folder:
            files = [f for f in files if _split_of(f"{folder.name}/{f.name}") == split]
        elif borrowed:
            held = split == "calibration"
            files = [f for f in files if (_split_of(f"{folder.name}/{f.name}") == "calibration") == held]
        per_class.append(sorted(files, key=lambda f: _digest(f"{f.parent.name}/{f.name}")))
    if total == 0:
        raise DataError(f"{where}: {root} holds no pictures in its {len(folders)} class folders: {accepted}")
    chosen: list[tuple[Path, int]] = []
    for turn in range(max(len(files) for files in per_class)):
        chosen += [(files[turn], label) for label, files in enumerate(per_class) if turn < len(files)]
    if not chosen:
        raise DataError(
            f"{where}: none of its {total} pictures falls in the {split} split: "
            f"more pictures, or a folder {SPLIT_FOLDERS[split][0]}/<class>/*"
        )
    return tuple(names), chosen[:count]
