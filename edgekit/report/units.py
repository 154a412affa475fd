"""Numbers as people write them: one place for digits, units and the minus sign."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EM DASH}"


def digits(value: float, significant: int = 3) -> str:
    """`value` with so many significant digits, never in powers of ten, thousands separated."""
    if value == 0:
        return "0"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS}{text}" if value < 0 else text


def _scaled(value: float, units: tuple[str, ...]) -> tuple[str, str]:
    step = 0
    while abs(value) >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    whole = step == 0 and float(value).is_integer()
    return (f"{int(value)}" if whole else digits(value)), units[step]


def size(value: float) -> tuple[str, str]:
    """Bytes: ("5.62", "MB"), decimal."""
    return _scaled(value, ("B", "kB", "MB", "GB"))


def count(value: float) -> tuple[str, str]:
    """("217", "M")."""
    return _scaled(value, ("", "k", "M", "G"))


def time_unit(milliseconds: float) -> tuple[str, float]:
    """The unit that suits a time, and how many of it make a millisecond."""
    if milliseconds < 0.1:
        return "µs", 1000.0
    return ("ms", 1.0) if milliseconds < 9999.5 else ("s", 0.001)


def milliseconds(value: float) -> tuple[str, str]:
    unit, factor = time_unit(value)
    return digits(value * factor), unit


def percent(value: float, places: int = 1) -> tuple[str, str]:
    """("93.1", "%"). Less than all is never rounded up to 100."""
    if value >= 100:
        return "100", "%"
    return f"{min(value, 100 - 10.0**-places):.{places}f}", "%"


def share(fraction: float, places: int = 1) -> str:
    """A fraction of 1 as '28.8 %'."""
    if not fraction:
        return "0 %"
    return said(percent(fraction * 100, places))


def points(difference: float) -> str:
    """Percentage points: '0.30', '−0.15'."""
    text = f"{abs(difference):.2f}"
    return f"{MINUS}{text}" if difference < 0 and float(text) else text


def seconds(value: float) -> str:
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 119.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"


def decibels(value: float | None, signed: bool = False) -> str:
    if value is None:
        return NONE
    if value >= 199.95:  # what a comparison without any difference is capped at
        return "exact"
    text = f"{abs(value):.1f}"
    sign = MINUS if value < 0 and float(text) else "+" if signed and float(text) else ""
    return f"{sign}{text} dB"


def said(pair: tuple[str, str], space: str = " ") -> str:
    """A (number, unit) pair as one string."""
    return space.join(part for part in pair if part)


def plural(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
