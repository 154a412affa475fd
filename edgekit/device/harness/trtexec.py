"""TensorRT's trtexec: its log -> figures of one file. 8.4 and older give only percentile(99%)."""

from __future__ import annotations

import re

from edgekit.device.harness import Board, FileRun, Harness, Runtime, Task, failed
from edgekit.errors import DeviceJobError

_ROW = re.compile(
    r"\[I\] (Latency|GPU Compute Time|Enqueue Time|H2D Latency|D2H Latency): (.*)$", re.MULTILINE
)
_VALUE = re.compile(r"(min|max|mean|median|percentile\((\d+)%\)) = ([0-9.e+-]+) ms")
_UNSTABLE = re.compile(r"\[W\] \* (GPU compute time is unstable.*?)\.?\s*$", re.MULTILINE)
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")
_QUERIES = re.compile(r"Timing trace has (\d+) queries")
_FLAGS = {"tensorrt-int8": ["--int8", "--fp16"], "tensorrt-fp16": ["--fp16"], "tensorrt-fp32": []}


def parse_trtexec(log: str) -> FileRun:
    """Figures of a log. Raises: DeviceJobError for a log that does not end in PASSED or has no latency."""
    if "&&&& PASSED" not in log:
        errors = [line.strip() for line in log.splitlines() if "[E]" in line or "&&&& FAILED" in line]
        raise DeviceJobError(
            f"trtexec: {(errors or ['the log ends early'])[0][:300]}: a log that ends in PASSED"
        )
    rows = dict(_ROW.findall(log))
    if "Latency" not in rows:
        raise DeviceJobError("trtexec: a log without latency: a line like 'Latency: min = 1.2 ms, ...'")
    run = FileRun(delegate="tensorrt", partitions=1)
    for word, percent, value in _VALUE.findall(rows["Latency"]):
        name = f"p{percent}" if percent else {"median": "p50"}.get(word, word)
        run.summary_ms[name] = float(value)
    run.count = int(found[1]) if (found := _QUERIES.search(log)) else 0
    run.notes = [found[1]] if (found := _UNSTABLE.search(log)) else []
    return run


def parse_version(log: str) -> str | None:
    """'8.4.1' from '[TensorRT v8401]', '10.3.0' from '[TensorRT v100300]'."""
    found = _VERSION.search(log)
    if not found:
        return None
    number = int(found[1])
    if number >= 100000:
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


class Trtexec(Harness):
    """Builds an engine of an ONNX file and times it; every process builds again."""

    name = "trtexec"
    formats = (".onnx",)
    delegates = tuple(_FLAGS)

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        done = board.run([board.tool(self.name), "--help"], 120)
        version = parse_version(done.out)
        if version is None:
            raise failed(board, done, "trtexec on the board, its path as tools.trtexec")
        return Runtime("tensorrt", version)

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        plan, found = task.profile, {}
        for name, path in task.files.items():
            argv = [
                board.tool(self.name),
                f"--onnx={path}",
                f"--iterations={plan.samples}",
                f"--duration={max(1, round(plan.seconds or plan.max_seconds))}",
                f"--warmUp={round(max(plan.warmup_seconds, 0.2) * 1000)}",
                *_FLAGS[task.delegate],
            ]
            done = board.run(argv)
            log = done.out + "\n" + done.err
            if done.exit_code and "&&&&" not in log:
                raise failed(board, done, "a file trtexec can build")
            found[name] = parse_trtexec(log)
            found[name].delegate = task.delegate
        return found


TRTEXEC = Trtexec()
