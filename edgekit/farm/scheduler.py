"""The way to a scheduler and to the boards behind it: an address in, a dask client and its boards out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import edgekit
from edgekit.device.inventory import Device
from edgekit.errors import InfrastructureError, UsageError, did_you_mean
from edgekit.farm import worker

_CONNECT_S = 20.0


def check_installed() -> None:
    """Raises: UsageError saying how to install what the farm needs."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"farm: {error.name or 'distributed'} is not installed: pip install 'edgekit[farm]'"
        ) from None


@contextmanager
def connect(scheduler: str | None, devices: Sequence[Device]) -> Iterator[Any]:
    """A dask client: of the scheduler at an address, or of a LocalCluster in this process with `devices`.

    The LocalCluster takes jobs from this process only: no other user of the machine can reach it.
    """
    check_installed()
    import dask
    from distributed import Client, LocalCluster

    for name in ("distributed", "asyncio"):  # what they, and dask's own tasks, complain of ends up in rows
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        worker.check_scheduler(scheduler)
        with Client(scheduler, timeout=_CONNECT_S, set_as_default=False) as client:
            yield client
        return
    settings = {"distributed.scheduler.work-stealing": False, "distributed.worker.profile.enabled": False}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=0, processes=False, dashboard_address=worker.LOOPBACK) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        workers = cluster.sync(worker.start_workers, cluster.scheduler_address, devices)
        try:
            yield client
        finally:
            cluster.sync(worker.stop_workers, workers)


def find_boards(
    client: Any, names: Sequence[str], patience_s: float = _CONNECT_S
) -> dict[str, dict[str, Any]]:
    """What the workers say of the boards wanted: ids or tag:NAME; none given means all.

    Raises: UsageError for a board that no worker has, or workers or a scheduler of another edgekit.
    """
    offers(client)  # a scheduler that cannot serve us says so before a run begins
    until = time.monotonic() + patience_s
    while not (answers := client.run(worker.describe)):
        if time.monotonic() > until:
            raise UsageError("farm: no worker has come: `edgekit farm worker` on the hosts with boards")
        time.sleep(0.2)
    known: dict[str, dict[str, Any]] = {}
    for answer in answers.values():
        if answer["edgekit"] != edgekit.__version__:
            raise UsageError(
                f"farm: the worker on {answer['host']} runs edgekit {answer['edgekit']}: "
                f"{edgekit.__version__}, as here"
            )
        known |= answer["boards"]
    chosen: dict[str, dict[str, Any]] = {}
    for name in names or sorted(known):
        if name.startswith("tag:"):
            found = {board: about for board, about in known.items() if name[4:] in about["tags"]}
            if not found:
                raise UsageError(f"device {name!r}: no board of the workers has this tag")
            chosen |= found
        elif name not in known:
            raise UsageError(
                f"device {name!r}: no worker has it: {', '.join(sorted(known))}{did_you_mean(name, known)}"
            )
        else:
            chosen[name] = known[name]
    return chosen


def offers(client: Any) -> dict[str, list[str]]:
    """Board -> addresses of the workers that have it now.

    Raises: InfrastructureError when the scheduler has gone; UsageError when it does not know edgekit.
    """
    try:
        return dict(client.run_on_scheduler(_offered))
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"farm: the scheduler's Python lacks this edgekit ({error}): `dask scheduler` where edgekit "
            f"{edgekit.__version__} is installed"
        ) from None
    except (OSError, TimeoutError, ValueError) as error:
        raise InfrastructureError(
            f"farm run: the scheduler has gone ({error}): --resume once it is back"
        ) from None


def _offered(dask_scheduler: Any) -> dict[str, list[str]]:
    """Runs on the scheduler: board -> addresses of the workers that have it."""
    found: dict[str, list[str]] = {}
    for address, state in dask_scheduler.workers.items():
        for board in state.resources:
            found.setdefault(board, []).append(address)
    return found
