"""`edgekit cache`: what the store of stage results holds, and pruning it; edgekit.cli.main mounts it by name.

Imports nothing but typer until a command runs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.pipeline.store import Entry

app = typer.Typer(rich_markup_mode=None)
cache = typer.Typer(
    help="Stage results that builds keep: show them by stage, or prune them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(cache, name="cache")

RootOption = Annotated[Path | None, typer.Option("--cache", help="The store; default $EDGEKIT_CACHE.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@cache.callback()
def show(
    context: typer.Context,
    root: RootOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what the store holds, by stage, and its limit."""
    if context.invoked_subcommand is not None:
        return
    from edgekit.pipeline.cache_limit import cache_limit
    from edgekit.pipeline.store import Store

    store = Store(root)
    limit, rows = cache_limit("auto", store.root), _by_stage(store.entries())
    total = sum(row["size_bytes"] for row in rows)
    if as_json:
        content = {"root": str(store.root), "limit_bytes": limit, "size_bytes": total, "stages": rows}
        print(json.dumps(content, indent=1))
        return
    print(f"{store.root}: {_size(total)} of {_size(limit) if limit is not None else 'no limit'}")
    for row in rows:
        print(f"  {row['stage']:<12} {row['entries']:>6} entries {_size(row['size_bytes']):>10}")


@cache.command()
def prune(
    root: RootOption = None,
    limit: Annotated[
        str, typer.Option("--limit", help='Keep this much: "2GB", "5%"; default the limit in force.')
    ] = "auto",
    everything: Annotated[bool, typer.Option("--all", help="Keep nothing.")] = False,
    debug: DebugOption = False,
) -> None:
    """Remove what was not used for longest; what a running build uses stays."""
    from edgekit.pipeline.cache_limit import cache_limit
    from edgekit.pipeline.store import Store

    if everything and limit != "auto":
        raise UsageError("cache prune: --all with --limit: one of them")
    store = Store(root)
    allowed = 0 if everything else cache_limit(limit, store.root)
    gone = [] if allowed is None else store.prune(allowed)
    left = store.entries()
    kept = sum(entry.size_bytes for entry in left)
    print(
        f"{store.root}: {len(gone)} entries removed ({_size(sum(entry.size_bytes for entry in gone))}), "
        f"{len(left)} kept ({_size(kept)})"
    )
    if allowed is not None and kept > allowed:
        print(f"  above {_size(allowed)} because running builds use them")


def _by_stage(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The largest stage first."""
    found: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        found[entry.stage].append(entry.size_bytes)
    rows = [
        {"stage": stage, "entries": len(sizes), "size_bytes": sum(sizes)} for stage, sizes in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["size_bytes"], row["stage"]))


def _size(count: int) -> str:
    from edgekit.report.units import size

    return " ".join(size(count))
