"""Pictures on disk, one folder a class, as torchvision's ImageFolder reads them.

In: a path, a split and how many. Out: a `Chosen`: class names, the files with their labels, and a line for
everything that was left out; nothing is decoded here. What PATH may hold:

    PATH/<class>/**/*.jpg                  divided by a hash of class and file name: 80 % train, 10 %
                                           calibration, 10 % evaluation, the same on every machine and
                                           unchanged by other files coming or going
    PATH/<split>/<class>/**/*.jpg          train, val, valid, test, training_set ... in any case
    PATH/*.jpg, PATH/calibration/*.jpg     pictures without labels: to calibrate with, and to compare answers
    .../images/ beside labels/             the annotations are left alone

Classes are numbered in the order of their names, empty ones too. What archives of a Mac or of Windows carry
along (._x.jpg, __MACOSX, Thumbs.db) is no picture.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DataError
from edgekit.files import escaped, user_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # ImageFolder's own
# What a split's own folder may be called, best first; calibration may borrow from training pictures.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "calibration": ("calibration", "calib", "train", "training"),
    "evaluation": ("evaluation", "eval", "val", "valid", "validation", "test", "testing"),
}
_KNOWN_FOLDERS = frozenset(name for names in SPLIT_FOLDERS.values() for name in names)
_ENDINGS = re.compile(r"[ _-]?(set|data|images|imgs|\d{4})$")  # training_set, train2017
_OF_CALIBRATION = ("calibration", "calib")
_ANNOTATIONS = ("labels", "label", "annotations", "annots", "masks", "mask")
_JUNK = ("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db")
_SHOWN = 3


@dataclass(frozen=True)
class Chosen:
    """The files of a split.

    Args:
        class_names: one a class folder, in order; empty when the pictures have no labels.
        files: the pictures, classes taken in turn.
        labels: a class index a file; None when the pictures have no labels.
        skipped: one line for each kind of thing that was left out, with the first names.
    """

    class_names: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    skipped: tuple[str, ...]


def _digest(relative: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(relative)).digest()[:8], "big")


def _split_of(relative: str) -> str:
    """The split a file belongs to when no folders say so."""
    tenth = _digest(relative) % 10
    return "evaluation" if tenth == 0 else "calibration" if tenth == 1 else "train"


def _is_junk(name: str) -> bool:
    return name.startswith("._") or name == ".DS_Store" or name.lower() in _JUNK


def _folders(root: Path) -> list[Path]:
    named = (p for p in root.iterdir() if not p.name.startswith(".") and not _is_junk(p.name))
    return sorted(p for p in named if p.is_dir())


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _loose(folder: Path) -> list[Path]:
    """Pictures directly in a folder."""
    return sorted(p for p in folder.iterdir() if not _is_junk(p.name) and _is_picture(p))


def _raise(error: OSError) -> None:
    raise error


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Every picture below a folder, links followed, and every other file."""
    pictures: list[Path] = []
    others: list[Path] = []
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if not _is_junk(name) and real not in seen:  # a link to a folder above would go round for ever
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            if not _is_junk(name):
                path = Path(place, name)
                (pictures if _is_picture(path) else others).append(path)
    return pictures, others


def _holds_pictures(folder: Path) -> bool:
    return bool(_below(folder)[0])


def _split_name(folder: Path) -> str:
    """What a folder's name says of a split: "Training_Set" and "train2017" are training and train."""
    return _ENDINGS.sub("", folder.name.lower())


def _unpacked(root: Path) -> Path:
    """`root`, or the one folder in it that an archive was packed from: one that is divided into splits."""
    folders = _folders(root)
    if len(folders) == 1 and not _loose(root) and _split_name(folders[0]) not in _KNOWN_FOLDERS:
        inner = _folders(folders[0])
        if any(_split_name(p) in _KNOWN_FOLDERS for p in inner) and _splits(folders[0], inner):
            return folders[0]
    return root


def _into_images(root: Path) -> Path:
    """`root`, or its images/ where that stands alone or beside annotations."""
    folders = _folders(root)
    images = next((p for p in folders if p.name.lower() == "images"), None)
    if images is None or not all(p is images or p.name.lower() in _ANNOTATIONS for p in folders):
        return root
    return images


def _splits(root: Path, folders: list[Path]) -> dict[str, Path]:
    """The folders that are splits, by their name in lower case; empty when the folders are classes."""
    named = {_split_name(p): p for p in reversed(folders) if _split_name(p) in _KNOWN_FOLDERS}
    others = [p for p in folders if _split_name(p) not in _KNOWN_FOLDERS]
    both = all(any(n in named for n in SPLIT_FOLDERS[s]) for s in ("train", "evaluation"))
    inside = all(_folders(p) for p in named.values())
    if named and ((both and inside) or not any(_holds_pictures(p) for p in others)):
        return named
    return {}


def _listed(paths: Iterable[Path], root: Path) -> str:
    names = [escaped(os.path.relpath(path, root)) for path in paths]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def choose_files(path: str | Path, split: str, count: int) -> Chosen:
    """At most `count` pictures of `split`, classes taken in turn.

    Raises:
        DataError: no such folder, no class folders to train from, no pictures, or none left for this split.
    """
    root = user_path(path)
    where = f"imagefolder:{path}"
    accepted = f"PATH/<class>/*{'|'.join(SUFFIXES)}"
    if split not in SPLIT_FOLDERS:
        raise DataError(f"{where}: there is no split '{split}': use one of {', '.join(SPLIT_FOLDERS)}")
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{where}: {what}: a folder laid out as {accepted}")
    try:
        return _Reader(root, where, accepted).chosen(split, count)
    except PermissionError as error:
        raise DataError(f"{where}: {error.filename}: no permission to read: a readable folder") from error


class _Reader:
    """One reading of a folder, which collects what it leaves out."""

    def __init__(self, root: Path, where: str, accepted: str) -> None:
        self.top, self.where, self.accepted = root, where, accepted
        self.skipped: list[str] = []

    def skip(self, paths: list[Path], word: str, why: str) -> None:
        if paths:
            self.skipped.append(f"{_plural(len(paths), word)} {why}: {_listed(paths, self.top)}")

    def chosen(self, split: str, count: int) -> Chosen:
        root = _into_images(_unpacked(self.top))
        folders = _folders(root)
        splits = _splits(root, folders)
        if not splits:  # folders of classes
            return self._of_classes(root, [p.name for p in self._classes(root)], split, count, split)
        self.skip([p for p in folders if p not in splits.values()], "folder", "beside the splits")
        found = next((splits[name] for name in SPLIT_FOLDERS[split] if name in splits), None)
        if found is None:
            raise DataError(
                f"{self.where}: no folder for the {split} split among {', '.join(p.name for p in folders)}: "
                f"add {' or '.join(SPLIT_FOLDERS[split])}/<class>/*"
            )
        # One numbering for all splits, even if a class is missing from one of them. Calibration looks at no
        # label, so what its own folder is divided into counts only where nothing else is.
        numbered = [p for name, p in splits.items() if name not in _OF_CALIBRATION] or [found]
        names = {c.name for place in numbered for c in self._classes(_into_images(place))}
        # Calibration borrows a tenth of train/, which training then leaves alone.
        borrows = not any(name in splits for name in _OF_CALIBRATION)
        borrowed = _split_name(found) in SPLIT_FOLDERS["train"] and borrows
        part = "" if not borrowed else "calibration" if split == "calibration" else "not calibration"
        return self._of_classes(_into_images(found), sorted(names), split, count, part)

    def _classes(self, root: Path) -> list[Path]:
        """The class folders: all but a labels/ without pictures, and none where no folder has any."""
        return [p for p in _folders(root) if p.name.lower() not in _ANNOTATIONS or _holds_pictures(p)]

    def _of_classes(self, root: Path, names: list[str], split: str, count: int, part: str) -> Chosen:
        """Files of the classes `names` under `root`; `part` says which share of them by hash, "" for all."""
        folders, loose = self._classes(root), _loose(root)
        self.skip([p for p in _folders(root) if p not in folders], "folder", "of annotations")
        strange = [p for p in folders if p.name not in names]
        labelled = bool(folders) and not strange
        if not labelled and split == "train":
            held = "pictures but no class folders" if loose else "no class folders"
            raise DataError(f"{self.where}: {root} holds {held}: {self.accepted}")
        groups: list[list[Path]] = []
        empty: list[Path] = []
        foreign: list[Path] = []
        places = [root / name for name in names] if labelled else folders
        for folder in places:
            pictures, others = _below(folder) if folder.is_dir() else ([], [])
            groups.append(pictures)
            foreign += others
            if folder.is_dir() and not pictures:
                empty.append(folder)
        if not any(groups) and loose and split != "train":
            labelled, groups, loose, empty = False, [loose], [], []
        total = sum(map(len, groups))
        if not total:
            held = f"no pictures in its {len(folders)} class folders" if folders else "no class folders"
            raise DataError(f"{self.where}: {root} holds {held}: {self.accepted}")
        self.skip(empty, "class folder", "without pictures")
        self.skip(foreign, "file", f"not {'|'.join(SUFFIXES)}")
        self.skip(loose, "picture", "outside the class folders")
        kept = [[p for p in group if self._is_in(root, p, part)] for group in groups]
        chosen: list[tuple[Path, int]] = []
        ordered = [sorted(group, key=lambda p: _digest(_key(root, p))) for group in kept]
        for turn in range(max(map(len, ordered))):
            chosen += [(group[turn], label) for label, group in enumerate(ordered) if turn < len(group)]
        if not chosen:
            raise DataError(
                f"{self.where}: none of its {total} pictures falls in the {split} split: "
                f"more pictures, or a folder {SPLIT_FOLDERS[split][0]}/<class>/*"
            )
        del chosen[count:]
        return Chosen(
            tuple(escaped(name) for name in names) if labelled else (),
            tuple(file for file, _ in chosen),
            tuple(label for _, label in chosen) if labelled else None,
            tuple(self.skipped),
        )

    def _is_in(self, root: Path, path: Path, part: str) -> bool:
        if not part:
            return True
        own = _split_of(_key(root, path))
        return own != "calibration" if part == "not calibration" else own == part


def _key(root: Path, path: Path) -> str:
    """What a file is drawn by: its name below the folder of classes, wherever that stands."""
    return path.relative_to(root).as_posix()
