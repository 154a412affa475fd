"""What parts of a network take on a board: pairs of files in, nanoseconds a copy out.

A part is a file that holds some operators once and one that holds them several times; the difference is what
the operators take in the middle of a network, with neither the call nor the input's way into the file. A
reference that is always the same runs beside every part: processors change their clock by several percent
from one second to the next, and what both feel cancels. Everything else is as in `measure`: reserved, by
inventory and carrier, lost links tried again, what heat spoiled repeated after a pause.
"""

from __future__ import annotations

import secrets
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgekit.device.harness import Board, Runtime, Task
from edgekit.device.harness.script import ScriptHarness
from edgekit.device.inventory import Device
from edgekit.device.kinds import Kind, find_kind
from edgekit.device.measure import ATTEMPTS, LINK_ATTEMPTS, Progress
from edgekit.device.probe import fingerprint_id, split_facts
from edgekit.device.probe.validity import telemetry_reasons
from edgekit.device.profiles import QUICK
from edgekit.device.reservation import bad_reason, record_failure, record_success, reserve
from edgekit.device.transport.connection import BEAT_LIMIT_S
from edgekit.errors import DeviceRefusedError, InfrastructureError, InvalidMeasurementError, UsageError

ROUNDS = 16
_ARCHIVE_BYTES = 48 << 20  # what a board has to hold at once
_BACKOFF_S = 1.0
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Part:
    """once, often: files with the operators once and `copies` times; a whole network is 1 copy alone."""

    name: str
    once: bytes
    often: bytes = b""
    copies: int = 1


@dataclass(frozen=True)
class PartTime:
    """ns: one further copy, or the file where there is one copy. reference_ns: the reference beside it.

    quiet: rounds that nothing interrupted. delegate, partitions: what ran, of the larger file.
    """

    ns: float
    reference_ns: float
    quiet: int
    delegate: str
    partitions: int | None


@dataclass
class Timer:
    """A board that is ours for a while. facts: what it is; reference: a file to hold times against."""

    board: Board
    kind: Kind
    harness: ScriptHarness
    runtime: Runtime
    task: Task
    facts: Mapping[str, str]
    reference: bytes
    notes: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """A short name of what the board is."""
        return fingerprint_id(dict(self.facts))

    def time(self, parts: Iterable[Part], order: int = 0) -> dict[str, PartTime]:
        """Every part, in a fresh process for each archive of them.

        Args:
            order: seed of the order.
        Raises: InvalidMeasurementError when heat or a governor spoils it three times; DeviceJobError.
        """
        found: dict[str, PartTime] = {}
        for batch in _batches(parts):
            copies = {part.name: part.copies for part in batch}
            told = self._valid(batch, copies, order)
            found |= {name: _time(row, copies[name]) for name, row in told.items()}
        return found

    def _valid(self, batch: list[Part], copies: Mapping[str, int], order: int) -> dict[str, Any]:
        device, probe, transport = self.board.device, self.kind.probe, self.board.transport
        reasons: list[str] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                self.notes.append(f"repeated: {'; '.join(reasons)}")
                time.sleep(device.limits.cool_down_s)
            before = probe.now(transport)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "parts.zip")
                _write(path, self.reference, batch)
                told = self.harness.copies(self.board, path, copies, ROUNDS, order, self.task)
            reasons = telemetry_reasons(before, [], probe.now(transport), device.limits.max_temperature_c)
            if not reasons:
                return told
        raise InvalidMeasurementError(
            f"{device.id}: {'; '.join(reasons)}: a board that keeps its clocks", device=device.id
        )


def on_board(
    device: Device,
    reference: bytes,
    work: Callable[[Timer], _Answer],
    *,
    runtime: str = "litert",
    delegate: str | None = None,
    threads: int = 1,
    wait_s: float = 0.0,
    progress: Progress | None = None,
) -> _Answer:
    """Reserve a board, find its runtime and do some timing there; after a lost link once more from the start.

    Args:
        work: what is timed; it keeps what it has when it is called again.
        runtime: one of our own script's.
    Raises: UsageError; DeviceBusyError; InfrastructureError after two more attempts; DeviceJobError.
    """
    kind, say = find_kind(device.kind), progress or (lambda _: None)
    harness = kind.harness(runtime)
    if not isinstance(harness, ScriptHarness):
        raise UsageError(f"{device.id}: {runtime} times whole files: a runtime with our own script, litert")
    if threads < 1:
        raise UsageError(f"threads = {threads}: at least 1")
    if reason := bad_reason(device):
        raise DeviceRefusedError(
            f"{device.id}: not in use: {reason}: `edgekit devices doctor {device.id}` clears it",
            device=device.id,
        )
    run = f"cost-{secrets.token_hex(3)}"
    wanted = delegate or kind.delegate.get(harness.name, harness.delegates[0])
    for attempt in range(1, LINK_ATTEMPTS + 1):
        patience = wait_s if attempt == 1 else max(wait_s, 2.0 * BEAT_LIMIT_S)
        try:
            with reserve(device, run, patience) as transport:
                if device.clocks != "observe":
                    kind.probe.lock_clocks(transport)
                board, task = Board(transport, device), Task({}, QUICK, threads, wanted)
                facts, _ = split_facts(kind.probe.fingerprint(transport))
                found = harness.check(board, wanted)
                answer = work(Timer(board, kind, harness, found, task, facts, reference))
            record_success(device.id)
            return answer
        except InfrastructureError as error:
            if attempt == LINK_ATTEMPTS or isinstance(error, DeviceRefusedError):
                record_failure(device.id, str(error))
                raise
            say(f"attempt {attempt} of {LINK_ATTEMPTS}: {error}")
            time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable: the last attempt returns or raises")


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    size = 0
    for part in parts:
        own = len(part.once) + len(part.often)
        if batch and size + own > _ARCHIVE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += own
    if batch:
        yield batch


def _write(path: Path, reference: bytes, batch: list[Part]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("reference"), reference)
        for part in batch:
            archive.writestr(zipfile.ZipInfo(f"{part.name}.1"), part.once)
            if part.copies > 1:
                archive.writestr(zipfile.ZipInfo(f"{part.name}.n"), part.often)


def _time(row: Mapping[str, Any], copies: int) -> PartTime:
    ns = float(row["more_ns"]) / (copies - 1) if copies > 1 else float(row["once_ns"])
    return PartTime(ns, float(row["reference_ns"]), int(row["quiet"]), row["delegate"], row["partitions"])
