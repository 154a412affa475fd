"""Our own script on the board (runner.py): LiteRT, ONNX Runtime or OpenVINO, raw nanoseconds, outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from edgekit.device.harness import SEED, Board, FileRun, Harness, Memory, Outputs, Runtime, Task, failed
from edgekit.device.profiles import Profile
from edgekit.errors import DeviceJobError, InfrastructureError, InvalidMeasurementError

_CHECK_S = 120.0
# What a runtime says when its delegate is not there.
_NO_DELEGATE = (
    "cannot open shared object file",
    "this onnxruntime has no",
    "this openvino has no",
    "Failed to load delegate",
)


class ScriptHarness(Harness):
    """runner.py with one of its runtimes."""

    def __init__(
        self, name: str, formats: tuple[str, ...], delegates: tuple[str, ...], packages: str
    ) -> None:
        self.name, self.formats, self.delegates, self.packages = name, formats, delegates, packages

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        found = self._call(board, {"mode": "check", "delegate": delegate}, _CHECK_S)
        return Runtime(found["runtime"], found["version"], found["python"])

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        job = {"files": dict(task.files), "starts": task.starts, "process": task.process, **_common(task)}
        return file_runs(self._call(board, measuring(task.profile) | job, None))

    def copies(
        self, board: Board, archive: Path, units: Mapping[str, int], rounds: int, order: int, task: Task
    ) -> dict[str, Any]:
        """What further copies of each unit take, in one fresh process: name -> what the script says of it.

        Args:
            archive: a .zip of "reference", which runs beside all of them, and of NAME.1 and NAME.n, files
                that hold the unit once and `units[NAME]` times.
            order: seed of the order in which they are timed.
        Raises: InvalidMeasurementError when the delegate does not take the reference.
        """
        asked = {"archive": board.transport.push(archive), "units": dict(units), "rounds": rounds}
        found = self._call(board, {"mode": "copies", "order": order, **asked, **_common(task)}, None)
        ran = found["reference"]["delegate"]
        if ran != task.delegate:
            raise InvalidMeasurementError(
                f"{board.device.id}: delegate {task.delegate} did not run the reference: {ran}",
                device=board.device.id,
            )
        return dict(found["units"])

    def memory(self, board: Board, path: str, task: Task) -> Memory:
        found = self._call(board, {"mode": "memory", "files": {"model": path}, **_common(task)}, None)
        return Memory(found["peak_bytes"], found["method"])

    def outputs(self, board: Board, path: str, inputs: Path, task: Task, into: Path) -> Outputs:
        job = {
            "mode": "outputs",
            "files": {"model": path},
            "inputs": board.transport.push(inputs),
            "outputs": f"{board.transport.work}/outputs.npz",
            **_common(task),
        }
        found = self._call(board, job, None)
        board.transport.pull("outputs.npz", into)
        return Outputs(into, found["sha256"], found["count"], found["delegate"], found["partitions"])

    def _call(self, board: Board, job: Mapping[str, Any], timeout: float | None) -> dict[str, Any]:
        """Run the script with a job; the object its last line is."""
        with as_file(files("edgekit.device.harness") / "runner.py") as script:
            runner = board.transport.push(script)
        words = json.dumps({"runtime": self.name, **job})
        done = board.run([board.python, runner, words], timeout)
        if done.exit_code:
            lines = [line for line in done.err.splitlines() if any(sign in line for sign in _NO_DELEGATE)]
            if lines:
                raise InvalidMeasurementError(
                    f"delegate {job.get('delegate')} is missing: {lines[-1].strip()[:300]}",
                    device=board.device.id,
                    command=done.command,
                    exit_code=done.exit_code,
                    stderr=done.err,
                )
            raise failed(board, done, f"a board with {board.python}, {self.packages}, and files it can run")
        try:
            found = json.loads(done.out.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise InfrastructureError(
                f"{board.device.id}: the measuring script printed no result: its last line as JSON",
                device=board.device.id,
                command=done.command,
                exit_code=done.exit_code,
                stderr=done.err,
            ) from error
        if not isinstance(found, dict):
            raise DeviceJobError(
                f"{board.device.id}: {found!r} is no result: an object", device=board.device.id
            )
        return found


def measuring(profile: Profile) -> dict[str, Any]:
    """What the script is told of a profile, for one process."""
    taken = ("samples", "seconds", "max_seconds", "warmup", "warmup_seconds")
    return {"mode": "measure", **{name: getattr(profile, name) for name in taken}}


def file_runs(found: Mapping[str, Any]) -> dict[str, FileRun]:
    """The script's answer to mode "measure" by file."""
    return {name: _file_run(entry, found) for name, entry in found["files"].items()}


def _common(task: Task) -> dict[str, Any]:
    return {"threads": task.threads, "delegate": task.delegate, "seed": SEED}


def _file_run(entry: Mapping[str, Any], found: Mapping[str, Any]) -> FileRun:
    return FileRun(
        init_ns=entry["init_ns"],
        first_ns=entry["first_ns"],
        samples_ns=entry["samples_ns"],
        starts_ns=entry.get("starts_ns"),
        began_at_s=found["began_at_s"],
        count=len(entry["samples_ns"]),
        preempted=entry["preempted"],
        undisturbed=entry["undisturbed"],
        partitions=entry["partitions"],
        delegate=entry["delegate"],
    )


LITERT = ScriptHarness(
    "litert",
    (".tflite",),
    ("xnnpack", "none", "reference", "libedgetpu.so.1"),
    "numpy, ai-edge-litert or tflite-runtime",
)
ONNXRUNTIME = ScriptHarness(
    "onnxruntime", (".onnx",), ("cpu", "xnnpack", "cuda", "tensorrt"), "numpy and onnxruntime"
)
OPENVINO = ScriptHarness("openvino", (".xml",), ("CPU",), "numpy and openvino 2023.2 or later")
SCRIPTS = (LITERT, ONNXRUNTIME, OPENVINO)
