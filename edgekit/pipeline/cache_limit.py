"""How much the store may hold: "2GB", "500 MB", "5%" of the disk or "off" -> bytes.

The default is 10 GB or a tenth of the disk, whichever is less; $EDGEKIT_CACHE_LIMIT replaces it, a flag or a
recipe's [machine] cache_limit replaces both.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from edgekit.errors import UsageError

DEFAULT_BYTES = 10 * 10**9
DEFAULT_SHARE = 0.1
VARIABLE = "EDGEKIT_CACHE_LIMIT"
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def cache_limit(asked: str, root: Path) -> int | None:
    """Bytes that the store at `root` may hold, None for no limit; "auto" asks the environment.

    Raises: UsageError for text that is no size.
    """
    if asked != "auto":
        return _parsed(asked, "cache limit", root)
    if text := os.environ.get(VARIABLE):
        return _parsed(text, f"${VARIABLE}", root)
    return min(DEFAULT_BYTES, int(DEFAULT_SHARE * _disk_bytes(root)))


def _parsed(text: str, where: str, root: Path) -> int | None:
    plain = text.strip().lower()
    if plain == "off":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*|%)", plain)
    if found is None or found[2] not in (*_UNITS, "%"):
        raise UsageError(
            f'{where} {text!r} is no size: something like "2GB", "500 MB" or "5%" of the disk, or "off"'
        )
    number = float(found[1])
    return int(number / 100 * _disk_bytes(root) if found[2] == "%" else number * _UNITS[found[2]])


def _disk_bytes(root: Path) -> int:
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).total
