"""Files + a board + a profile -> Result: what `edgekit bench` and the farm call.

Reserve, fingerprint, push by sha256, then fresh processes with telemetry beside them, then memory and
answers. A lost link is tried again twice from the start; a measurement that heat or a governor spoiled is
repeated twice after a pause, and published as INVALID with its reasons if that did not help; a job that fails
is not repeated.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import edgekit
from edgekit.device import statistics
from edgekit.device.drift import Evaluation, drift
from edgekit.device.harness import (
    Board,
    FileRun,
    Harness,
    Runtime,
    Task,
    load_order,
    model_files,
    model_sha256,
)
from edgekit.device.inventory import Device
from edgekit.device.kinds import Kind, find_kind
from edgekit.device.probe import Sample, fingerprint_id, split_facts
from edgekit.device.probe.telemetry import parse_telemetry
from edgekit.device.probe.validity import UNCOUNTED, busy_notes, telemetry_reasons
from edgekit.device.profiles import Profile, find_profile
from edgekit.device.reservation import bad_reason, record_failure, record_success, reserve
from edgekit.device.result import INVALID, SCHEMA_VERSION, VALID, Result
from edgekit.device.sustained import sustained
from edgekit.device.transport.connection import BEAT_LIMIT_S
from edgekit.errors import (
    DeviceJobError,
    DeviceRefusedError,
    InfrastructureError,
    InvalidMeasurementError,
    UsageError,
)

LINK_ATTEMPTS = 3
ATTEMPTS = 3
_BACKOFF_S = 1.0
_COOL_POLL_S = 2.0
_COOL_MARGIN_C = 2.0
_PLAIN = ("none", "reference", "cpu", "CPU")  # what needs no proof: the runtime's own kernels
Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Request:
    device: Device
    kind: Kind
    files: Mapping[str, Path]
    profile: Profile
    runtime: str | None
    delegate: str | None
    threads: int
    evaluations: Mapping[str, Evaluation]
    run: str
    say: Progress


@dataclass
class _Series:
    """One attempt: every file's processes, and how the board felt."""

    runs: dict[str, list[FileRun]]
    before: Sample
    after: Sample
    during: list[Sample]
    reasons: list[str] = field(default_factory=list)
    hopeless: bool = False  # another attempt would give the same


def measure(
    device: Device,
    files: Mapping[str, str | Path],
    profile: str | Profile = "quick",
    *,
    runtime: str | None = None,
    delegate: str | None = None,
    threads: int = 1,
    minutes: float | None = None,
    evaluations: Mapping[str, Evaluation] | None = None,
    run: str | None = None,
    wait_s: float = 0.0,
    progress: Progress | None = None,
) -> Result:
    """Measure model files on one board.

    Args:
        device: a board of an inventory (edgekit.device.inventory.load_inventory).
        files: name -> path; several are interleaved. An .xml needs its .bin beside it.
        profile: "quick", "publish", "sustained" (with `minutes`) or a Profile.
        runtime: a harness of the board's kind; default the first that is installed and takes the files.
        delegate: what must run the model, proven; default the kind's.
        evaluations: file name -> inputs to compare the board's answers on.
        run: name of the run; default time and a random part.
        wait_s: how long to wait for a board that someone holds.
        progress: called with what is being done.
    Raises: UsageError; ArtifactError for a file that is missing; DeviceBusyError; InfrastructureError after
        two more attempts; DeviceJobError. An invalid measurement is a Result that says so.
    """
    request = _Request(
        device,
        find_kind(device.kind),
        _existing(files),
        find_profile(profile, minutes),
        runtime,
        delegate,
        threads,
        evaluations or {},
        run or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        progress or (lambda _: None),
    )
    _check_request(request)
    for attempt in range(1, LINK_ATTEMPTS + 1):
        # after a lost link the board is still ours until it notices the silence
        patience = wait_s if attempt == 1 else max(wait_s, 2.0 * BEAT_LIMIT_S)
        try:
            with reserve(device, request.run, patience) as transport:
                result = _measure(request, Board(transport, device))
            record_success(device.id)
            return result
        except InfrastructureError as error:
            if attempt == LINK_ATTEMPTS or isinstance(error, DeviceRefusedError):
                record_failure(device.id, str(error))
                raise
            request.say(f"attempt {attempt} of {LINK_ATTEMPTS}: {error}")
            time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable: the last attempt returns or raises")


def choose_harness(
    kind: Kind, board: Board, wanted: str | None, files: Mapping[str, Path]
) -> tuple[Harness, Runtime]:
    """The first harness that takes every file and is installed; what it found.

    Raises: UsageError when none takes the files; DeviceJobError saying what is missing on the board.
    """
    names = [wanted] if wanted else [*board.device.runtimes] or [h.name for h in kind.harnesses]
    suffixes = {path.suffix for path in files.values()}
    fitting = [h for h in map(kind.harness, names) if suffixes <= set(h.formats)]
    if not fitting:
        raise UsageError(
            f"{board.device.id}: no runtime for {', '.join(sorted(suffixes))} together: "
            + "; ".join(f"{h.name} takes {', '.join(h.formats)}" for h in map(kind.harness, names))
        )
    problems = []
    for harness in fitting:
        try:
            return harness, harness.check(board)
        except DeviceJobError as error:
            problems.append(error)
    raise DeviceJobError(
        f"{board.device.id}: no runtime works: {'; '.join(str(p) for p in problems)} "
        f"(`edgekit devices doctor {board.device.id}`)",
        device=board.device.id,
        command=problems[-1].command,
        exit_code=problems[-1].exit_code,
        stderr=problems[-1].stderr,
    )


def _existing(files: Mapping[str, str | Path]) -> dict[str, Path]:
    if not files:
        raise UsageError("measure: no file given: at least one model file")
    paths = {name: Path(path) for name, path in files.items()}
    for path in paths.values():
        model_files(path)  # says what is missing before a board is taken
    return paths


def _check_request(request: _Request) -> None:
    device, kind = request.device, request.kind
    if device.transport["type"] not in kind.transports:
        raise UsageError(
            f"{device.id}: {kind.name} over {device.transport['type']}: {', '.join(kind.transports)}"
        )
    if request.threads < 1:
        raise UsageError(f"threads = {request.threads}: at least 1")
    if reason := bad_reason(device):
        raise DeviceRefusedError(
            f"{device.id}: not in use: {reason}: `edgekit devices doctor {device.id}` clears it",
            device=device.id,
        )


def _measure(request: _Request, board: Board) -> Result:
    started = datetime.now(UTC)
    device, probe, say = request.device, request.kind.probe, request.say
    clocks = "observe" if device.clocks == "observe" else probe.lock_clocks(board.transport)
    say("fingerprint")
    facts = probe.fingerprint(board.transport)
    harness, runtime = choose_harness(request.kind, board, request.runtime, request.files)
    delegate = request.delegate or request.kind.delegate.get(harness.name, harness.delegates[0])
    if delegate not in harness.delegates and not delegate.startswith("lib"):
        raise UsageError(f"delegate {delegate!r}: {harness.name} has {', '.join(harness.delegates)}")
    say("push")
    remote = {name: board.push(path) for name, path in request.files.items()}
    task = Task(remote, request.profile, request.threads, delegate, request.profile.sustained)
    notes, attempts, first = [], 0, probe.now(board.transport)
    while True:
        attempts += 1
        series = _attempt(request, board, harness, task)
        if not series.reasons or series.hopeless or attempts == ATTEMPTS:
            break
        notes.append(f"attempt {attempts} was invalid: {'; '.join(series.reasons)}")
        say(f"invalid ({series.reasons[0]}), cooling down")
        _cool_down(request, board, first)
    again = probe.fingerprint(board.transport)
    for name in ("power_mode", "governor"):
        if facts.get(name) != again.get(name):
            series.reasons.append(f"{name} changed from {facts.get(name)} to {again.get(name)}")
    notes += busy_notes(float(facts.get("load", 0)), int(facts.get("cores", 1)))
    if device.emulated:
        notes.append("emulated: its latency means nothing")
    rows = {}
    for name, path in request.files.items():
        say(f"memory and answers of {name}")
        rows[name] = _row(request, board, harness, task, name, path, series, notes)
    stable, state = split_facts(facts)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "edgekit_version": edgekit.__version__,
        "harness_version": harness.version,
        "run": request.run,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": asdict(request.profile),
        "device": {
            "id": device.id,
            "kind": device.kind,
            "transport": device.transport["type"],
            "emulated": device.emulated,
            "tags": list(device.tags),
            "fingerprint": stable,
            "state": state,
            "fingerprint_id": fingerprint_id(facts),
            "clocks": clocks,
        },
        "runtime": asdict(runtime)
        | {"harness": harness.name, "threads": request.threads, "delegate": delegate},
        "files": rows,
        "ratios": _ratios(series),
        "telemetry": {
            "before": series.before.as_dict(),
            "after": series.after.as_dict(),
            "series": [sample.as_dict() for sample in series.during],
        },
        "validity": {
            "status": INVALID if series.reasons else VALID,
            "reasons": list(dict.fromkeys(series.reasons)),
            "notes": list(dict.fromkeys(notes)),
            "attempts": attempts,
        },
    }
    return Result(
        content, {name: [run.samples_ns or [] for run in runs] for name, runs in series.runs.items()}
    )


def _attempt(request: _Request, board: Board, harness: Harness, task: Task) -> _Series:
    """Every process of the profile, with a sampler beside it, and what makes it invalid."""
    probe, plan, limits = request.kind.probe, request.profile, request.device.limits
    runs: dict[str, list[FileRun]] = {name: [] for name in task.files}
    before = probe.now(board.transport)
    sampler = probe.start(board.transport, limits.wall_time_s * plan.processes * len(task.files))
    missing: list[str] = []
    try:
        for process in range(plan.processes):
            for part in _parts(task, process):
                request.say(f"process {process + 1} of {plan.processes}: {', '.join(part.files)}")
                for name, run in harness.measure(board, part).items():
                    runs[name].append(run)
    except InvalidMeasurementError as error:
        missing.append(str(error))
    finally:
        printed = sampler.stop()
    series = _Series(runs, before, probe.now(board.transport), parse_telemetry(printed))
    heat = telemetry_reasons(before, series.during, series.after, limits.max_temperature_c)
    if not plan.sustained:  # what heat does is what a sustained run is for
        series.reasons += heat
    for name, of_file in runs.items():
        series.reasons += statistics.disturbed(name, of_file)
    unfit = {name: request.kind.unfit(path, task.delegate) for name, path in request.files.items()}
    proof = [f"{name}: {reason}" for name, reason in unfit.items() if reason]
    proof += missing or _delegate_reasons(runs, task.delegate)
    series.reasons += proof
    series.hopeless = bool(proof) or plan.sustained
    return series


def _parts(task: Task, process: int) -> list[Task]:
    """Files interleave in one process; sustained, one file at a time: each would heat the others."""
    if not task.profile.sustained:
        return [replace(task, files=load_order(task.files, process), process=process)]
    return [replace(task, files={name: path}) for name, path in task.files.items()]


def _delegate_reasons(runs: Mapping[str, list[FileRun]], wanted: str) -> list[str]:
    reasons = []
    for name, of_file in runs.items():
        counts = {run.partitions for run in of_file}
        if wanted not in _PLAIN and any(run.delegate != wanted or run.partitions == 0 for run in of_file):
            found = ", ".join(sorted({run.delegate for run in of_file}))
            reasons.append(f"delegate {wanted} did not run {name}: {found}")
        elif len(counts) > 1:
            reasons.append(f"{name}: {sorted(map(str, counts))} delegate partitions in different processes")
    return reasons


def _cool_down(request: _Request, board: Board, first: Sample) -> None:
    """Wait until the board is about as cool as it was when we came, at most its cool-down time."""
    until = time.monotonic() + request.device.limits.cool_down_s
    while time.monotonic() < until:
        now = request.kind.probe.now(board.transport)
        cool = first.hottest_c is None or (now.hottest_c or 0.0) <= first.hottest_c + _COOL_MARGIN_C
        if cool and not (now.throttled or 0) & 0xF and not now.thermal_status:
            return
        time.sleep(min(_COOL_POLL_S, max(0.0, until - time.monotonic())))


def _row(
    request: _Request,
    board: Board,
    harness: Harness,
    task: Task,
    name: str,
    path: Path,
    series: _Series,
    notes: list[str],
) -> dict[str, Any]:
    """One file's section."""
    runs = series.runs[name]
    row: dict[str, Any] = {
        "sha256": model_sha256(path),
        "size_bytes": sum(part.stat().st_size for part in model_files(path)),
        "format": path.suffix.lstrip("."),
        "delegate": runs[0].delegate if runs else "none",
        "partitions": runs[0].partitions if runs else None,
        "figures": statistics.figures(runs) if runs else None,
        "memory": None,
        "drift": None,
        "sustained": None,
    }
    if not runs:
        return row
    notes += [note for run in runs for note in run.notes]
    if row["figures"]["raw"] and row["figures"]["preempted"] is None:
        notes.append(UNCOUNTED)
    told = [run.memory_bytes for run in runs if run.memory_bytes is not None]
    if told:
        row["memory"] = {"peak_bytes": max(told), "method": f"what {harness.name} reports"}
    elif found := harness.memory(board, task.files[name], task):
        row["memory"] = asdict(found)
    if request.profile.sustained:
        row["sustained"] = sustained(request.profile, runs[0], series.during)
    if name in request.evaluations:
        row["drift"] = drift(harness, board, task.files[name], path, task, request.evaluations[name])
        if row["drift"] is None:
            notes.append(f"{harness.name} gives no outputs: answers were not compared")
    return row


def _ratios(series: _Series) -> list[dict[str, Any]]:
    """Every file against the first."""
    (reference, base), *others = series.runs.items()
    return [
        {"file": name, "reference": reference, **statistics.ratio(runs, base)}
        for name, runs in others
        if runs and base and len(runs) == len(base)
    ]
