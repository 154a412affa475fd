"""Every exception edgekit raises on purpose.

    EdgekitError
    ├── UsageError            a command line, recipe or argument that cannot be right
    ├── UnknownModelError     a model name that resolves to nothing (carries near names)
    ├── WeightsError          weights that cannot be found, fetched or loaded
    ├── DataError             images or labels that cannot be used
    ├── CaptureError          a module that torch.export or our importer cannot express
    ├── GraphError            a graph that violates its own invariants
    ├── TrainError            a training that diverged, or whose checkpoint is another's
    ├── QuantizationError     calibration that cannot give usable parameters
    ├── PruneError            channels that cannot be taken out, or a choice that leaves nothing
    ├── UnsupportedError      operators a target cannot lower (all of them, with modules)
    ├── ArtifactError         a model file that is truncated, foreign or inconsistent
    ├── StoreError            the store or the output directory cannot be written
    ├── ReportError           a report.json that does not keep its contract
    ├── DeviceError           a board; keeps device, command, exit code and stderr
    │   ├── InfrastructureError      link, board or tool: a new attempt may cure it
    │   │   └── DeviceRefusedError   only a person can cure it: host key, authorization, full disk
    │   ├── DeviceBusyError          someone else holds the board; the message says who and since when
    │   ├── DeviceJobError           the work itself failed there: never tried again
    │   └── InvalidMeasurementError  it ran, but the figures mean nothing: throttled, no delegate
    └── GateError             a proof that failed its threshold

A message is one line: where: what was wrong: what would be accepted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgekitError(Exception):
    """Base of every error a user can cause or cure; the CLI prints it in one line, exit 2."""


class UsageError(EdgekitError):
    pass


class UnknownModelError(EdgekitError):
    pass


class WeightsError(EdgekitError):
    pass


class DataError(EdgekitError):
    pass


class CaptureError(EdgekitError):
    pass


class GraphError(EdgekitError):
    pass


class TrainError(EdgekitError):
    pass


class QuantizationError(EdgekitError):
    pass


class PruneError(EdgekitError):
    pass


class UnsupportedError(EdgekitError):
    pass


class ArtifactError(EdgekitError):
    pass


class StoreError(EdgekitError):
    pass


class ReportError(EdgekitError):
    pass


class DeviceError(EdgekitError):
    """What went wrong on or on the way to a board, with what was run there."""

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        command: Sequence[str] | str = (),
        exit_code: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.device = device
        self.command = command if isinstance(command, str) else " ".join(command)
        self.exit_code = exit_code
        self.stderr = stderr


class InfrastructureError(DeviceError):
    """A lost link, a rebooted board, a push that was cut short: a new attempt may cure it."""

    retryable = True


class DeviceRefusedError(InfrastructureError):
    """The way to the board is closed until a person does something: host key, authorization, full disk."""

    retryable = False


class DeviceBusyError(DeviceError):
    pass


class DeviceJobError(DeviceError):
    pass


class InvalidMeasurementError(DeviceError):
    pass


class GateError(EdgekitError):
    """A build whose proof failed; the CLI exits 1, not 2."""


def did_you_mean(word: str, known: Iterable[str], count: int = 3) -> str:
    """'; did you mean a, b?' for the names nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=count, cutoff=0.6)
    return f"; did you mean {', '.join(near)}?" if near else ""
