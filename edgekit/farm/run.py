"""The client of a farm: jobs in, a row in the journal for every job that ended.

Every board has at most two jobs on the scheduler: one that runs and, as long as the board is well and one
worker has it, one behind it, so that it never waits for us. The others wait here, where a bad board's can be
called off. dask moves the jobs of a worker that died to another one that has the board, or keeps them until
one comes back.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import edgekit
from edgekit.device.inventory import Device
from edgekit.device.reservation import who
from edgekit.device.result import Result
from edgekit.errors import InfrastructureError, UsageError, did_you_mean
from edgekit.farm import worker
from edgekit.farm.plan import Job
from edgekit.farm.state import FAILED, FINAL, INVALID, NOT_RUN, UNREACHED, VALID, Journal, Row
from edgekit.history import History, records_of

STRIKES = 3
PATIENCE_S = 60.0
STATUS = "status.json"
METADATA = "edgekit-farm"
_TICK_S = 1.0
_CONNECT_S = 20.0
_FETCH_S = 20.0


@dataclass
class Board:
    """One board of a run: what waits for it, what is on the scheduler, and why it is not used any more."""

    id: str
    about: Mapping[str, Any]
    waiting: deque[Job] = field(default_factory=deque)
    sent: dict[Any, tuple[Job, str]] = field(default_factory=dict)  # future -> job, since when
    strikes: int = 0
    bad: str | None = None
    workers: tuple[str, ...] = ()
    lost_at: float | None = None

    @property
    def depth(self) -> int:
        return 2 if not self.strikes and len(self.workers) == 1 else 1


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

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
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

    Raises: UsageError for a board that no worker has, or workers of another edgekit.
    """
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


class Run:
    """One go at the jobs of a journal. `rows` also has those that were not run."""

    def __init__(
        self,
        client: Any,
        jobs: Sequence[Job],
        boards: Mapping[str, Mapping[str, Any]],
        journal: Journal,
        history: History,
        *,
        patience_s: float = PATIENCE_S,
        on_row: Callable[[Row], None] | None = None,
    ) -> None:
        self.client, self.journal, self.history, self.patience_s = client, journal, history, patience_s
        self.rows: dict[str, Row] = {}
        self.boards = {name: Board(name, about, bad=about.get("bad")) for name, about in boards.items()}
        self.name = f"farm-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._on_row = on_row or (lambda _: None)
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._told = 0.0
        for job in jobs:
            row = journal.rows.get(job.id)
            if row is not None and row["status"] in FINAL:
                self.rows[job.id] = row
            else:
                self.boards[job.device].waiting.append(job)
        self.left = len(jobs) - len(self.rows)

    def go(self) -> None:
        """Until every job has a row. Raises: InfrastructureError when the scheduler goes away."""
        self._look()
        for board in self.boards.values():
            self._feed(board)
        self._publish()
        seen = time.monotonic()
        try:
            while any(board.sent for board in self.boards.values()):
                with suppress(queue.Empty):
                    self._take(self._done.get(timeout=_TICK_S))
                if time.monotonic() - seen > _TICK_S:
                    seen = time.monotonic()
                    self._look()
                    self._publish()
        finally:
            for board in self.boards.values():
                self._call_off(board)
            self._publish(over=True)

    # -- boards -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Which workers have which board now; boards that have been without one for too long are given up."""
        try:
            offered = self.client.run_on_scheduler(_offered)
        except (OSError, TimeoutError, ValueError) as error:
            raise InfrastructureError(
                f"farm run: the scheduler has gone ({error}): --resume once it is back"
            ) from None
        now = time.monotonic()
        for board in self.boards.values():
            board.workers = tuple(offered.get(board.id, ()))
            if board.workers:
                board.lost_at = None
            elif board.lost_at is None:
                board.lost_at = now
            elif now - board.lost_at > self.patience_s and not board.bad:
                self._give_up(board, f"no worker has had {board.id} for {self.patience_s:g} s")

    def _feed(self, board: Board) -> None:
        if board.bad:
            self._give_up(board, board.bad)
        while board.waiting and len(board.sent) < board.depth:
            self._send(board, board.waiting.popleft())

    def _send(self, board: Board, job: Job) -> None:
        artifact = job.artifact
        order = {
            "job": job.id,
            "run": self.name,
            "label": str(job),
            "device": board.id,
            "name": artifact.target,
            "digest": artifact.digest,
            "folder": str(artifact.folder),
            "files": list(artifact.files),
            "hashes": dict(artifact.hashes),
            "settings": asdict(job.settings),
        }
        future = self.client.submit(
            worker.run_job,
            order,
            key=f"{self.name}-{job.id}-{secrets.token_hex(2)}",
            resources={board.id: 1},
            pure=False,
            allow_other_workers=False,
        )
        board.sent[future] = (job, _now())
        future.add_done_callback(self._done.put)

    def _give_up(self, board: Board, reason: str) -> None:
        """No more jobs for a board; what it still has is not run."""
        board.bad = reason
        jobs = [job for job, _ in board.sent.values()] + list(board.waiting)
        self._call_off(board)
        board.waiting.clear()
        for job in jobs:
            self._end(_row(job, NOT_RUN, [reason]), keep=False)

    def _call_off(self, board: Board) -> None:
        futures = list(board.sent)
        board.sent.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)

    # -- jobs ---------------------------------------------------------------------------------------------

    def _take(self, future: Any) -> None:
        """What a job that ended means for its board and for the journal."""
        board = next((board for board in self.boards.values() if future in board.sent), None)
        if board is None:  # called off
            return
        job, _ = board.sent.pop(future)
        for behind, (following, _) in board.sent.items():
            board.sent[behind] = (following, _now())
        answer = self._answer(future)
        if answer is None:
            self.client.cancel([future], force=True)
            self._send(board, job)
            return
        outcome = answer["outcome"]
        if outcome == worker.FILES:
            self._deliver(board, job)
            return
        if outcome in (worker.MEASURED, worker.JOB):
            board.strikes = 0
        else:
            board.strikes += 1
            if outcome == worker.REFUSED or board.strikes == STRIKES:
                board.bad = answer["error"] if outcome == worker.REFUSED else _struck(answer["error"])
        self._feed(board)  # before anything is written: the board need not wait for our disk
        self._end(self._row(job, answer))

    def _answer(self, future: Any) -> dict[str, Any] | None:
        """What the job said; None when its worker died before we had it."""
        if future.status == "cancelled" or self.client.status != "running":
            raise InfrastructureError("farm run: the scheduler has gone: --resume once it is back")
        if future.status != "error":
            with suppress(TimeoutError):
                return dict(future.result(timeout=_FETCH_S)) if future.status == "finished" else None
            return None
        error = future.exception()
        return {"outcome": worker.LINK, "error": f"its worker failed: {type(error).__name__}: {error}"}

    def _deliver(self, board: Board, job: Job) -> None:
        """The worker has no such file: send it to all that have the board, then the job again."""
        files = {name: (job.artifact.folder / name).read_bytes() for name in job.artifact.files}
        self.client.run(worker.receive, job.artifact.digest, files, workers=list(board.workers))
        self._send(board, job)

    def _row(self, job: Job, answer: Mapping[str, Any]) -> Row:
        """The journal's row; a measurement is written to the run's directory and to the history first."""
        facts = {key: answer.get(key) for key in ("worker", "boot", "started", "start_ns", "end_ns", "notes")}
        if answer["outcome"] != worker.MEASURED:
            status = FAILED if answer["outcome"] == worker.JOB else UNREACHED
            error = {key: answer.get(key) for key in ("command", "exit_code", "stderr")}
            return _row(job, status, [answer["error"]]) | facts | {"error": error}
        result = Result(answer["content"], answer["samples"])
        path = result.write(self.journal.directory / "results")
        artifact = job.artifact
        names = {artifact.target: (artifact.model, artifact.target)}
        runs = []
        for record in records_of(result.content, result.samples, names):
            self.history.add(record)
            runs.append(record["run"])
        facts |= {
            "result": str(path.relative_to(self.journal.directory)),
            "record": runs[0] if runs else None,
        }
        return _row(job, VALID if result.valid else INVALID, result.reasons) | facts

    def _end(self, row: Row, keep: bool = True) -> None:
        if keep:
            self.journal.append(row)
        self.rows[row["job"]] = row
        self.left -= 1
        self._on_row(row)

    # -- what others may see --------------------------------------------------------------------------------

    def _publish(self, over: bool = False) -> None:
        state = {
            "run": self.name,
            "client": who(),
            "process": os.getpid(),
            "time": time.time(),
            "over": over,
            "left": self.left,
            "ended": len(self.rows),
            "boards": {board.id: _state(board) for board in self.boards.values()},
        }
        path = self.journal.directory / STATUS
        part = path.with_suffix(".part")
        part.write_text(json.dumps(state, indent=1))
        part.replace(path)
        if self.client.status == "running":
            self.client.set_metadata([METADATA, self.name], state)


def read_status(directory: str | Path) -> dict[str, Any] | None:
    """What the client that works in a directory last said, None when none has."""
    try:
        return dict(json.loads((Path(directory) / STATUS).read_text()))
    except (OSError, ValueError):
        return None


def _state(board: Board) -> dict[str, Any]:
    first = next(iter(board.sent.values()), None)
    return {
        "kind": board.about["kind"],
        "workers": list(board.workers),
        "bad": board.bad,
        "job": str(first[0]) if first else None,
        "since": first[1] if first else None,
        "queued": len(board.waiting) + max(0, len(board.sent) - 1),
    }


def _offered(dask_scheduler: Any) -> dict[str, list[str]]:
    """Runs on the scheduler: board -> addresses of the workers that have it."""
    found: dict[str, list[str]] = {}
    for address, state in dask_scheduler.workers.items():
        for board in state.resources:
            found.setdefault(board, []).append(address)
    return found


def _struck(error: str) -> str:
    return f"{STRIKES} failures of the board in a row, the last: {error}"


def _row(job: Job, status: str, reasons: Sequence[str]) -> Row:
    artifact = job.artifact
    return {
        "job": job.id,
        "model": artifact.model,
        "target": artifact.target,
        "device": job.device,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "rejected": artifact.rejected,
        "status": status,
        "reasons": list(reasons),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
