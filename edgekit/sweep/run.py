"""Points over workers, each kept in its folder once it is done: a sweep that was stopped goes on.

OUT/points/ID/build/       the build's directory
OUT/points/ID/result.json  written last: what came of the point
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.errors import InfrastructureError, UsageError
from edgekit.farm.scheduler import check_installed
from edgekit.farm.worker import LOOPBACK, check_scheduler
from edgekit.files import write_atomic
from edgekit.sweep import work
from edgekit.sweep.plan import Point

_CONNECT_S = 20.0
_RESULT = "result.json"
Row = dict[str, Any]


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The directory of a sweep, which one process at a time may fill."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{out}: another sweep fills it: another --out") from None
        yield


def folder_of(out: Path, point: Point) -> Path:
    return out / "points" / point.id


def finished(out: Path, point: Point) -> Row | None:
    """What came of a point that was built before; None where it is to be built."""
    try:
        row = json.loads((folder_of(out, point) / _RESULT).read_text())
    except (OSError, ValueError):
        return None
    return row if row.get("status") == "done" else None


def run(
    points: Sequence[Point],
    out: Path,
    *,
    workers: int,
    scheduler: str | None,
    timeout_s: float,
    cache: str | None,
    trust: bool,
    on_row: Callable[[Point, Row], None],
) -> dict[str, Row]:
    """Build the points that are not done yet.

    Args:
        workers: points at once on this machine, which share its cores. scheduler: tcp://HOST:PORT of a
            `dask scheduler` whose workers have edgekit, in the place of this machine.
        on_row: called as each is done.
    Returns: what came of every point, by its id.
    """
    rows = {point.id: row for point in points if (row := finished(out, point)) is not None}
    left = {point.id: point for point in points if point.id not in rows}
    if not left:
        return rows
    jobs = max(1, len(os.sched_getaffinity(0)) // workers) if scheduler is None else None
    with _client(scheduler, workers) as client:
        from distributed import as_completed

        futures = {}
        for point in left.values():
            future = client.submit(
                work.build_point,
                _request(point, jobs, cache if scheduler is None else None, trust),
                timeout_s,
                key=f"edgekit-sweep-{point.id}-{os.getpid()}",
                retries=0,
                pure=False,
            )
            futures[future.key] = (future, point)
        try:
            for future in as_completed([future for future, _ in futures.values()], loop=client.loop):
                point = futures[future.key][1]
                rows[point.id] = _keep(out, point, _result_of(future))
                future.release()
                on_row(point, rows[point.id])
        except BaseException:
            client.cancel([future for future, _ in futures.values()], force=True)
            work.stop()
            raise
    return rows


def _request(point: Point, jobs: int | None, cache: str | None, trust: bool) -> dict[str, Any]:
    recipe = point.recipe
    if recipe.machine.jobs is None and jobs is not None:
        recipe = replace(recipe, machine=replace(recipe.machine, jobs=jobs))
    return {"recipe": recipe.to_dict(), "cache": cache, "trust": trust, "alone": point.measures}


def _result_of(future: Any) -> Row:
    """What the worker said; a worker that died with its point costs that point."""
    try:
        return dict(future.result())
    except Exception as error:  # whatever dask wraps: a lost worker, another edgekit there
        return {"status": "crashed", "reason": f"its worker: {' '.join(str(error).split())[:300]}"}


def _keep(out: Path, point: Point, row: Row) -> Row:
    """Put a build's files and then its result where they stay."""
    folder = folder_of(out, point)
    folder.mkdir(parents=True, exist_ok=True)
    if (archive := row.pop("archive", None)) is not None:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(Path(temporary, "build"), filter="data")
            shutil.rmtree(folder / "build", ignore_errors=True)
            os.rename(Path(temporary, "build"), folder / "build")
    row = {"point": point.id, "values": point.values, **row}
    write_atomic(folder / _RESULT, json.dumps(row, indent=1) + "\n")
    return row


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Any]:
    """A dask client: of the scheduler at an address, or of a cluster in this process, closed to others."""
    check_installed()
    import dask
    from distributed import Client, LocalCluster

    for name in ("distributed", "asyncio"):  # what they complain of ends up in rows
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        check_scheduler(scheduler)
        with Client(scheduler, timeout=_CONNECT_S, set_as_default=False) as client:
            if not client.scheduler_info(n_workers=-1)["workers"]:
                raise InfrastructureError(f"sweep: {scheduler} has no worker: `dask worker {scheduler}`")
            yield client
        return
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            n_workers=1, threads_per_worker=workers, processes=False, dashboard_address=LOOPBACK
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
