"""What an Edge TPU will take of a file, for `edgekit check`: the dict of a preflight in, text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.report import units

Row = Mapping[str, Any]


def print_preflight(content: Row, console: Console | None = None) -> None:
    """Print one file: counts, operators by name, why some are left, and where the compiler says otherwise.

    Args:
        content: as `edgekit.pipeline.finished.check` returns it.
    """
    console = console or Console(highlight=False)
    rows = content["operators"]
    _line(console, content["file"], "bold")
    _line(console, f"predicted: {_placed(content)}")
    _line(console, f"{units.said(units.size(content['parameter_bytes']))} of parameters for the Edge TPU")
    console.print()
    console.print(_by_operator(rows))
    own = [row for row in rows if row["reasons"] and not row["after"]]
    _listed(console, "left on the processor", own, "reasons")
    for name, count in Counter(row["after"] for row in rows if row["after"]).items():
        _line(console, f"  {count} more that depend on {name}")
    _listed(console, "not certain", [row for row in rows if row["cautions"]], "cautions")
    if content["compiler"] is not None:
        _head(console, f"edgetpu_compiler {content['compiler']['version']}: {_placed(content['compiler'])}")
        _compiled(console, content["compiler"])
        _differences(console, content["differences"])


def _placed(counts: Row) -> str:
    return f"{counts['on_tpu']} operators on the Edge TPU, {counts['on_cpu']} on the processor"


def _line(console: Console, words: str, style: str = "") -> None:
    console.print(Text(words, style), soft_wrap=True)


def _head(console: Console, words: str) -> None:
    console.print()
    _line(console, words, "bold")


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(titles[0], no_wrap=True)
    for title in titles[1:]:
        table.add_column(title, justify="right")
    return table


def _by_operator(rows: Sequence[Row]) -> Table:
    table = _table("operator", "Edge TPU", "processor")
    for op in sorted({row["op"] for row in rows}):
        mapped = [row["mapped"] for row in rows if row["op"] == op]
        table.add_row(Text(op), str(sum(mapped)), str(len(mapped) - sum(mapped)))
    return table


def _listed(console: Console, words: str, rows: Sequence[Row], key: str) -> None:
    """Operators of one name that break the same rules are one group; its first stands for it."""
    if not rows:
        return
    _head(console, f"{words}: {len(rows)}")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        rules = (reason.rpartition(": ")[2] for reason in row[key])
        groups.setdefault((row["op"], *rules), []).append(row)
    for first, *others in groups.values():
        more = f" and {len(others)} more" if others else ""
        _line(console, f"  {first['op']} at {first['module']}{more}")
        for reason in first[key]:
            _line(console, f"    {reason}", "dim")


def _compiled(console: Console, said: Row) -> None:
    for words, key in (("on the chip", "on_chip_bytes"), ("streamed", "off_chip_bytes")):
        if said[key] is not None:
            _line(console, f"{units.said(units.size(said[key]))} of parameters {words}")
    for row in said["operators"]:
        if row["status"] != "Mapped to Edge TPU":
            _line(console, f"  {row['count']} {row['name']}: {row['status']}", "dim")


def _differences(console: Console, rows: Sequence[Row] | None) -> None:
    if rows is None:
        _line(console, "no table in this log: give NAME_edgetpu.log, or compile with --show_operations")
        return
    if not rows:
        _line(console, "as predicted")
        return
    if sum(sum(row["predicted"]) - sum(row["compiled"]) for row in rows):
        _line(console, "it lists other operators than the file has: is it the log of this file?")
    console.print()
    table = _table("Edge TPU + processor", "predicted", "compiler")
    for row in rows:
        table.add_row(Text(row["op"]), *("{} + {}".format(*row[key]) for key in ("predicted", "compiled")))
    console.print(table)
