"""What a board is and how it feels: fingerprint, telemetry, clocks; a probe is a few shell snippets.

`facts` print "fact NAME VALUE" lines through the function `fact`; `sample` prints lines that probe.telemetry
reads, once a round; `once` is for a single look, `stream` prints by itself beside the rounds (tegrastats).
`lock` sets the clocks and `undo` prints, before anything is touched, the shell that puts them back: the
board's keeper runs it when the session ends, however it ends.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from edgekit.device.probe.telemetry import Sample, parse_telemetry
from edgekit.device.transport import Stream, Transport
from edgekit.errors import InfrastructureError

__all__ = ["Probe", "Sample", "fingerprint_id", "split_facts"]

INTERVAL_S = 2.0
# Facts that change from run to run on one and the same board.
VOLATILE = ("boot_id", "load", "throttled", "free_memory_kb", "uptime_s")
_FACT = 'fact() { [ -z "$2" ] || printf \'fact %s %s\\n\' "$1" "$2"; }\n'


@dataclass(frozen=True)
class Probe:
    """Shell snippets of one kind of board; see the module."""

    facts: tuple[str, ...]
    sample: tuple[str, ...]
    once: str = ""
    stream: str | None = None
    undo: str | None = None
    lock: str | None = None

    def fingerprint(self, transport: Transport) -> dict[str, str]:
        """Name -> value of every fact the board gave."""
        script = _FACT + "\n".join(self.facts)
        done = transport.run(["sh", "-c", script], timeout=60)
        facts = {}
        for line in done.out.splitlines():
            word, _, rest = line.partition(" ")
            name, _, value = rest.partition(" ")
            if word == "fact" and value.strip():
                facts[name] = " ".join(value.split())
        if "machine" not in facts:
            raise InfrastructureError(
                f"{transport.device}: its facts could not be read: a board whose shell has uname",
                device=transport.device,
                command=done.command,
                exit_code=done.exit_code,
                stderr=done.err,
            )
        return facts

    def now(self, transport: Transport) -> Sample:
        """Temperatures, clocks and throttling at this moment."""
        done = transport.run(["sh", "-c", _ROUND + "\n".join((*self.sample, self.once))], timeout=60)
        samples = parse_telemetry(done.out)
        return samples[-1] if samples else Sample(0.0)

    def start(self, transport: Transport, limit_s: float) -> Stream:
        """Sample beside a measurement, until the stream is stopped."""
        rounds = f"while :; do\n{_ROUND}{chr(10).join(self.sample)}\nsleep {INTERVAL_S:g}\ndone"
        script = f"{self.stream} &\n{rounds}" if self.stream else rounds
        return transport.stream(["sh", "-c", script], limit_s=limit_s)

    def lock_clocks(self, transport: Transport) -> str:
        """Write the undo journal, set the clocks, and ask again; what was set, in words.

        Raises: InfrastructureError when the board refuses; nothing is changed then.
        """
        if self.lock is None or self.undo is None:
            return "nothing to lock on this kind"
        transport.run(["sh", "-c", f"({self.undo}) >undo.part && mv undo.part undo"], check=True)
        done = transport.run(["sh", "-c", self.lock], timeout=60)
        if done.exit_code:
            transport.run(["sh", "-c", "sh ./undo; rm -f undo"])
            last = (done.err.strip() or done.out.strip() or "no message").splitlines()[-1][:200]
            raise InfrastructureError(
                f"{transport.device}: the clocks cannot be locked ({last}): a user who may, or "
                'clocks = "observe" in the inventory',
                device=transport.device,
                command=done.command,
                exit_code=done.exit_code,
                stderr=done.err,
            )
        return done.out.strip()


def split_facts(facts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(what the board is, what it was doing when it was asked)."""
    state = {name: value for name, value in facts.items() if name in VOLATILE}
    return {name: value for name, value in facts.items() if name not in VOLATILE}, state


def fingerprint_id(facts: dict[str, str]) -> str:
    """A short name of what a board is: figures of two names are not to be compared."""
    stable, _ = split_facts(facts)
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]


# The clock of samples: seconds since boot, read without starting a process.
_ROUND = 'read -r up rest </proc/uptime; echo "at $up"\n'
