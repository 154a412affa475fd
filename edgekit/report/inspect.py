"""What a model file is, for `edgekit inspect`: the dicts of an audit and a delegation in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.report import facts, formats, units
from edgekit.targets.words import Words

_BAR = 24
_KINDS = {"int8": "green", "table": "magenta", "int16": "cyan", "dynamic": "yellow", "float": "red"}


def print_audit(
    audit: Mapping[str, Any],
    title: str,
    words: Words,
    *,
    delegation: Mapping[str, Any] | None = None,
    layers: bool = True,
    console: Console | None = None,
) -> None:
    """Print an audit: shares, tensors with scales, operators, what its runtime leaves, every layer.

    Args:
        audit: as `edgekit.runtimes.audit` gives it, as a dict; sections whose keys are absent are left out.
        title: the file's name. words: those of its runtime; one that fuses lists the operators it executes.
        delegation: as `edgekit.runtimes.audit.delegation` gives it, as a dict; without it nothing is said
            of partitions.
        layers: also list every operator.
    """
    console = console or Console(highlight=False)
    console.print(Text(title, "bold"), soft_wrap=True)
    executed = not words.delegates
    console.print(_overview(audit, delegation, words))
    for kind in ("inputs", "outputs"):
        if audit.get(kind):
            _head(console, kind)
            console.print(_tensors(audit[kind]))
    if audit.get("histogram"):
        _head(console, "operators executed" if executed else "operators")
        console.print(_histogram(audit["histogram"], audit.get("ops") or ()))
    _listed(console, "in float", facts.names(_sequence(audit.get("float_ops"))))
    _listed(console, words.layout, facts.names(_sequence(audit.get("transposes"))))
    if delegation is not None:
        _listed(console, words.left, facts.names(_sequence(delegation["undelegated_ops"])))
    if layers and audit.get("ops"):
        _head(console, "layers")
        console.print(_layers(audit["ops"]))


def _sequence(value: Any) -> list[Any] | int | None:
    return list(value) if isinstance(value, tuple) else value


def _head(console: Console, words: str) -> None:
    console.print()
    console.print(Text(words, "bold"))


def _listed(console: Console, words: str, names: Sequence[str], limit: int = 20) -> None:
    if not names:
        return
    _head(console, f"{words}: {len(names)}")
    for name in names[:limit]:
        console.print(Text(f"  {name}"), soft_wrap=True)
    if len(names) > limit:
        console.print(Text(f"  and {len(names) - limit} more", "dim"))


def _overview(audit: Mapping[str, Any], delegation: Mapping[str, Any] | None, words: Words) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column()

    def row(label: str, said: str) -> None:
        table.add_row(label, Text(said))

    if "size_bytes" in audit:
        size = units.said(units.size(audit["size_bytes"]))
        row("size", f"{size} ({audit['size_bytes']:,} bytes)")
    by_macs = f", {units.share(audit['int8_macs_share'])} of MACs" if "int8_macs_share" in audit else ""
    row("in int8", f"{units.share(audit['int8_ops_share'])} of operators{by_macs}")
    if audit.get("table_ops"):
        row("as lookup tables", str(audit["table_ops"]))
    row("in float", str(facts.tally(_sequence(audit["float_ops"]))))
    if audit.get("dynamic_ops"):
        row("float on int8 weights", str(facts.tally(_sequence(audit["dynamic_ops"]))))
    row(words.layout, str(facts.tally(_sequence(audit["transposes"]))))
    if "per_channel_share" in audit:
        row("per-channel weights", units.share(audit["per_channel_share"]))
    if "macs" in audit:
        row("MACs", units.said(units.count(audit["macs"])))
    if not words.delegates and audit.get("kinds"):
        row("executed", ", ".join(f"{n:,} {kind}" for kind, n in audit["kinds"].items()))
    if delegation is not None:
        if not words.delegates:
            row("runtime", formats.runtime_name(delegation["runtime"]))
        else:
            row("partitions", f"{delegation['partitions']} ({delegation['runtime']})")
        row(words.left, str(facts.tally(_sequence(delegation["undelegated_ops"]))))
    for name in audit.get("signatures") or ():
        row("signature", name)
    return table


def _tensors(tensors: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("name", "dtype", "shape"):
        table.add_column(title, overflow="fold")
    table.add_column("scale", justify="right")
    table.add_column("zero point", justify="right")
    for tensor in tensors:
        scale, zero_point = tensor.get("scale"), tensor.get("zero_point")
        table.add_row(
            Text(str(tensor["name"])),
            Text(str(tensor["dtype"])),
            " x ".join(str(n) for n in tensor["shape"]),
            units.NONE if scale is None else f"{scale:.8g}",
            units.NONE if zero_point is None else str(zero_point),
        )
    return table


def _histogram(histogram: Mapping[str, int], ops: Sequence[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    most = max(histogram.values(), default=1)
    for op, count in sorted(histogram.items(), key=lambda item: (-item[1], item[0])):
        kinds = [row["kind"] for row in ops if row["op"] == op]
        bar = Text()
        for kind in sorted(set(kinds), key=kinds.index):
            bar.append("━" * max(1, round(_BAR * kinds.count(kind) / most)), _KINDS.get(kind, "dim"))
        if not kinds:
            bar.append("━" * max(1, round(_BAR * count / most)))
        table.add_row(Text(op), str(count), bar + Text(f" {', '.join(dict.fromkeys(kinds))}", "dim"))
    return table


def _layers(ops: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", justify="right", style="dim")
    table.add_column("operator", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("module", overflow="fold")
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("weights", justify="right", no_wrap=True)
    for row in ops:
        table.add_row(
            str(row["index"]),
            Text(row["op"]),
            Text(row["kind"], _KINDS.get(row["kind"], "dim")),
            Text(row.get("module") or ""),
            units.said(units.count(row["macs"])) if row.get("macs") else "",
            units.said(units.size(row["weight_bytes"])) if row.get("weight_bytes") else "",
        )
    return table
