"""What a terminal's encoding cannot show is shown in letters it has, instead of ending a finished build."""

from __future__ import annotations

import codecs
import sys
import unicodedata

HANDLER = "edgekit.plain"
_PLAIN = str.maketrans({
    "✓": "+", "✗": "x", "×": "x", "−": "-", "–": "-", "—": "-", "·": ".", "…": "...", "→": "->",
    "≥": ">=", "≤": "<=", "≈": "~", "’": "'", "‘": "'", "“": '"', "”": '"', "µ": "u", "°": " deg",
    **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*#@", strict=True)),
})  # fmt: skip


def tolerate_encodings() -> None:
    """Let stdout and stderr take any text, in whatever encoding they have."""
    codecs.register_error(HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test or a notebook put in their place
            stream.reconfigure(errors=HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The letters that stand for those an encoding lacks; bytes of a name that was not UTF-8 as \\xNN."""
    assert isinstance(error, UnicodeEncodeError)
    text = "".join(_replaced(c) for c in error.object[error.start : error.end])
    return text, error.end


def _replaced(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    known = character.translate(_PLAIN)
    return unicodedata.normalize("NFKD", known).encode("ascii", "ignore").decode() or "?"
