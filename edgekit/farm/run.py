"""The client of a farm: jobs in, a row in the journal for every job that ended.

Every board has at most two jobs on the scheduler: one that runs and, as long as the board is well and one
worker has it, one behind it, so that it never waits for us. The others wait here, where a bad board's can be
called off. dask moves the jobs of a worker that died to another one that has the board, or keeps them until
one comes back. A run that is interrupted keeps what is finished and frees its boards before it ends.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekit.device.reservation import who
from edgekit.device.result import Result
from edgekit.errors import InfrastructureError
from edgekit.farm import worker
from edgekit.farm.plan import Job
from edgekit.farm.scheduler import offers
from edgekit.farm.state import FAILED, FINAL, INVALID, NOT_RUN, UNREACHED, VALID, Journal, Row
from edgekit.history import History, records_of

STRIKES = 3
PATIENCE_S = 60.0
RELEASE_S = 20.0
INTERRUPTED = "interrupted"
STATUS = "status.json"
METADATA = "edgekit-farm"
_TICK_S = 1.0
_FETCH_S = 20.0
_FETCH_POLL_S = 0.2


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
        on_interrupt: Callable[[], None] | None = None,
    ) -> None:
        self.client, self.journal, self.history, self.patience_s = client, journal, history, patience_s
        self.rows: dict[str, Row] = {}
        self.boards = {name: Board(name, about, bad=about.get("bad")) for name, about in boards.items()}
        self.interrupted = False
        self.held: list[str] = []  # boards whose worker had not freed them when an interrupted run ended
        self.name = f"farm-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._on_row, self._on_interrupt = on_row or (lambda _: None), on_interrupt or (lambda: None)
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for job in jobs:
            row = journal.rows.get(job.id)
            if row is not None and row["status"] in FINAL:
                self.rows[job.id] = row
            else:
                self.boards[job.device].waiting.append(job)
        self._total = len(jobs)

    def interrupt(self) -> None:
        """End soon: `go` frees the boards and returns. May be called by a signal handler."""
        self.interrupted = True
        self._done.put(None)

    def go(self) -> None:
        """Until every job has a row. Raises: InfrastructureError when the scheduler goes away."""
        try:
            self._go()
        finally:
            for board in self.boards.values():
                self._call_off(board)
            self._publish(over=True)

    def _go(self) -> None:
        self._look()
        for board in self.boards.values():
            self._feed(board)
        self._publish()
        seen = time.monotonic()
        while not self.interrupted and any(board.sent for board in self.boards.values()):
            self._wait()
            if time.monotonic() - seen > _TICK_S:
                seen = time.monotonic()
                self._look()
                self._publish()
        if self.interrupted:
            self._free()

    def _wait(self) -> None:
        """For a job that ends, but not for long."""
        with suppress(queue.Empty):
            future = self._done.get(timeout=_TICK_S)
            if future is not None:
                self._take(future)

    def _free(self) -> None:
        """Have the workers end our jobs and wait for it; what was not measured by then is missing."""
        self._on_interrupt()
        self._look()
        self.client.run(worker.stop, self.name, on_error="ignore")
        until = time.monotonic() + RELEASE_S
        while time.monotonic() < until and any(b.sent and b.workers for b in self.boards.values()):
            self._wait()
        for board in self.boards.values():
            if board.sent and board.workers:
                self.held.append(board.id)
            for job in self._take_back(board):
                self._miss(job)

    # -- boards -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Which workers have which board now; boards that have been without one for too long are given up."""
        offered = offers(self.client)
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
            "digest": artifact.sha256,
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
        """No more jobs for a board."""
        board.bad = reason
        for job in self._take_back(board):
            self._end(_row(job, NOT_RUN, [reason]), keep=False)

    def _take_back(self, board: Board) -> list[Job]:
        """The jobs a board still has; it has none then."""
        jobs = [job for job, _ in board.sent.values()] + list(board.waiting)
        self._call_off(board)
        board.waiting.clear()
        return jobs

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
        if self.interrupted and (answer is None or answer["outcome"] != worker.MEASURED):
            # Ctrl-C reaches the processes of boards, too: what failed since then did not fail by itself
            self._miss(job)
            return
        if answer is None:
            self.client.cancel([future], force=True)
            self._send(board, job)
            return
        if answer["outcome"] == worker.FILES:
            problem = self._deliver(board, job)
            if problem is None:
                self._send(board, job)
                return
            answer = {"outcome": worker.LINK, "error": problem}
        outcome = answer["outcome"]
        if outcome in (worker.MEASURED, worker.JOB):
            board.strikes = 0
        else:
            board.strikes += 1
            if outcome == worker.REFUSED or board.strikes == STRIKES:
                board.bad = answer["error"] if outcome == worker.REFUSED else _struck(answer["error"])
        if not self.interrupted:
            self._feed(board)  # before anything is written: the board need not wait for our disk
        self._end(self._row(job, answer))

    def _answer(self, future: Any) -> dict[str, Any] | None:
        """What the job said; None when its worker died before we had it."""
        if future.status == "cancelled" or self.client.status != "running":
            raise InfrastructureError("farm run: the scheduler has gone: --resume once it is back")
        if future.status != "error":
            return _fetch(future)
        error = future.exception()
        return {"outcome": worker.LINK, "error": f"its worker failed: {type(error).__name__}: {error}"}

    def _deliver(self, board: Board, job: Job) -> str | None:
        """Send the files to the workers that have the board; what one of them says against it, or None."""
        artifact = job.artifact
        files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
        said = self.client.run(
            worker.receive, artifact.sha256, files, workers=list(board.workers), on_error="ignore"
        )
        return next((f"{board.id}: {problem}" for problem in said.values() if problem), None)

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
        self._on_row(row)

    def _miss(self, job: Job) -> None:
        """A job that an interrupted run leaves for the next."""
        self.rows[job.id] = _row(job, NOT_RUN, [INTERRUPTED])

    # -- what others may see --------------------------------------------------------------------------------

    def _publish(self, over: bool = False) -> None:
        ended = sum(row["status"] in FINAL for row in self.rows.values())
        state = {
            "run": self.name,
            "client": who(),
            "process": os.getpid(),
            "time": time.time(),
            "over": over,
            "left": self._total - ended,
            "ended": ended,
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


def _fetch(future: Any) -> dict[str, Any] | None:
    """The answer of a finished job; None as soon as it is known to have died with its worker."""
    answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def fetch() -> None:  # would wait for dask to compute it once more
        with suppress(Exception):
            answers.put(dict(future.result(timeout=_FETCH_S)))
        answers.put(None)

    threading.Thread(target=fetch, daemon=True).start()
    while future.status == "finished":
        with suppress(queue.Empty):
            return answers.get(timeout=_FETCH_POLL_S)
    return None


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
