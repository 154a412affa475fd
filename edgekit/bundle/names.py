"""Names from outside, made harmless: labels, file names, members of archives."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

from edgekit.errors import ArtifactError
from edgekit.files import escaped

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
_DIRECTION = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LONGEST = 200


def safe_name(text: str, fallback: str = "model") -> str:
    """A file name on any system: letters, digits, dot, dash and underscore, never '.', '..' or a device."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:_LONGEST].rstrip("._-")
    if not name:
        return fallback
    return f"{name}_" if name.split(".", 1)[0].lower() in _RESERVED else name


def one_line(text: str) -> str:
    """A label as one line of labels.txt: no line breaks, control or direction-changing characters."""
    kept = "".join(
        " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in escaped(text)
        if c not in _DIRECTION
    )
    return " ".join(kept.split())


def inside(root: Path, name: str) -> Path:
    """`root / name` for a relative name with forward slashes that stays under `root`, links followed.

    Raises: ArtifactError for a name that is absolute, climbs, or is no name at all.
    """
    path = PurePosixPath(name)
    parts = name.split("/")
    bad = (
        not name
        or len(name) > 4 * _LONGEST
        or "\\" in name
        or ":" in name
        or any(unicodedata.category(c) == "Cc" for c in name)
        or path.is_absolute()
        or any(part in ("", ".", "..") for part in parts)
        or any(part.split(".", 1)[0].lower() in _RESERVED for part in parts)
    )
    resolved = root.resolve()
    if bad or not (resolved / path).resolve().is_relative_to(resolved):
        raise ArtifactError(f"{root}: file name {name[:80]!r}: a relative name inside the directory")
    return resolved / path
