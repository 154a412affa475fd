"""What a board lacks, and how to install it: every check is run on the board, the harness included."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from edgekit.device.harness import Board, Runtime
from edgekit.device.inventory import Device
from edgekit.device.kinds import find_kind
from edgekit.device.reservation import bad_reason, look, record_success
from edgekit.errors import DeviceError, DeviceJobError, InfrastructureError

_SPACE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Finding:
    """One check. needed: without it the board measures nothing."""

    what: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = False


def probe(device: Device) -> dict[str, object]:
    """Facts and the present state of a board. Raises: InfrastructureError when it cannot be reached."""
    kind = find_kind(device.kind)
    with look(device, f"probe-{secrets.token_hex(3)}") as transport:
        facts = kind.probe.fingerprint(transport)
        return {"facts": facts, "now": kind.probe.now(transport).as_dict()}


def doctor(device: Device, min_runtime_version: str | None = None) -> list[Finding]:
    """Check the way to a board, its space, and every runtime of its kind with the delegate it would prove.

    A board that has what it needs is no longer marked bad.

    Args:
        min_runtime_version: what a bundle's manifest asks of TensorFlow Lite; an older one on the board is
            said.
    """
    kind = find_kind(device.kind)
    bad = bad_reason(device)
    findings = []
    try:
        with look(device, f"doctor-{secrets.token_hex(3)}") as transport:
            findings.append(
                Finding("connection", True, f"{device.transport['type']}, {transport.base}", needed=True)
            )
            board = Board(transport, device)
            facts = kind.probe.fingerprint(transport)
            name = facts.get("model") or facts.get("cpu") or facts["machine"]
            findings += [Finding("facts", True, f"{name}, {facts.get('os', facts['kernel'])}"), _space(board)]
            findings += _runtimes(board, min_runtime_version)
    except InfrastructureError as error:
        message = str(error)
        return [*findings, Finding("connection", False, message, message.rpartition(": ")[2], needed=True)]
    usable = all(f.ok for f in findings if f.needed)
    if bad and usable and device.health == "ok":
        record_success(device.id)
        findings.append(Finding("health", True, f"was marked bad ({bad}); cleared"))
    elif bad:
        findings.append(Finding("health", False, bad, "health in the inventory, once the board works"))
    return findings


def _space(board: Board) -> Finding:
    done = board.run(["df", "-kP", board.transport.base], 30)
    fields = (done.out.strip().splitlines() or [""])[-1].split()
    free = int(fields[3]) * 1024 if len(fields) >= 4 and fields[3].isdigit() else None
    if free is None:
        return Finding("space", False, f"df of {board.transport.base} says nothing", "a df that takes -kP")
    detail = f"{free // 2**20} MiB free in {board.transport.base}"
    return Finding(
        "space", free >= _SPACE_BYTES, detail, f"{_SPACE_BYTES // 2**20} MiB free, or another base"
    )


def _runtimes(board: Board, least: str | None) -> list[Finding]:
    kind, findings = find_kind(board.device.kind), []
    wanted = board.device.runtimes or tuple(harness.name for harness in kind.harnesses)
    for name in wanted:
        harness = kind.harness(name)
        delegate = kind.delegate.get(name, harness.delegates[0])
        try:
            runtime = harness.check(board, delegate)
            findings.append(_able(name, runtime, f"delegate {delegate}", least))
        except InfrastructureError:
            raise
        except DeviceError as error:
            findings.append(Finding(name, False, _reason(error), kind.install.get(name, "")))
    works = [finding.what for finding in findings if finding.ok]
    detail = f"{', '.join(works)} can measure" if works else "none of them works"
    return [*findings, Finding("a runtime", bool(works), detail, "one of the above", needed=True)]


def _able(name: str, runtime: Runtime, detail: str, least: str | None) -> Finding:
    """A runtime that works; one that is older than the model asks for would refuse it or answer wrong.

    LiteRT counts on its own, and its first release is newer than any that is asked for.
    """
    detail = f"{runtime.name} {runtime.version}, {detail}"
    if least is None or runtime.name != "tflite-runtime" or _release(runtime.version) >= _release(least):
        return Finding(name, True, detail)
    cure = f'a runtime from {least} on, or a model built with [target] min_runtime = "{runtime.version}"'
    return Finding(name, False, f"{detail}: older than {least}, which the model needs", cure)


def _release(version: str) -> tuple[int, ...]:
    """(2, 10) of "2.10.1"."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _reason(error: DeviceError) -> str:
    last = (error.stderr.strip().splitlines() or [str(error)])[-1][:200]
    return last if isinstance(error, DeviceJobError) else str(error)
