"""OpenVINO's benchmark_app: its log -> figures of one file. The unit of a figure varies (us or ms)."""

from __future__ import annotations

import re

from edgekit.device.harness import Board, FileRun, Harness, Runtime, Task, failed
from edgekit.errors import DeviceJobError

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_FIGURE = re.compile(
    r"(Median|Average|Min|Max|First inference took|Read model took|Compile model took)"
    r":?\s+([0-9.]+) (us|ms|s)\b"
)
_START = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"
_COUNT = re.compile(r"Count:\s+(\d+) iterations")


def parse_benchmark_app(log: str) -> FileRun:
    """Figures of a log. Raises: DeviceJobError for a log without a median."""
    found = {name: float(value) * _UNITS[unit] for name, value, unit in _FIGURE.findall(log)}
    if "Median" not in found:
        raise DeviceJobError("benchmark_app: a log without figures: a line like 'Median: 1.23 ms'")
    run = FileRun(summary_ms={"p50": found["Median"]}, delegate="CPU")
    if "Average" in found:
        run.summary_ms["mean"] = found["Average"]
    if "Compile model took" in found:
        run.init_ns = int((found["Compile model took"] + found.get("Read model took", 0.0)) * 1e6)
    if "First inference took" in found:
        run.first_ns = int(found["First inference took"] * 1e6)
    if count := _COUNT.search(log):
        run.count = int(count[1])
    return run


class BenchmarkApp(Harness):
    """One synchronous stream, float32 where the file is float: the default precision may be bfloat16."""

    name = "benchmark_app"
    formats = (".xml", ".onnx")
    delegates = ("CPU",)

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        script = "import openvino; print(openvino.__version__)"
        done = board.run([board.python, "-c", script], 120)
        if done.exit_code:
            raise failed(board, done, f"a board with {board.python} and openvino")
        return Runtime("openvino", done.out.strip())

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        plan = task.profile
        tool = board.device.tools.get(self.name)
        start = [tool] if tool else [board.python, "-c", _START]
        found = {}
        for name, path in task.files.items():
            options = ["-m", path, "-d", "CPU", "-api", "sync", "-hint", "none"]
            options += ["-nstreams", "1", "-infer_precision", "f32"]
            length = ["-t", str(max(1, round(plan.seconds or plan.max_seconds)))]
            done = board.run([*start, *options, "-nthreads", str(task.threads), *length])
            if done.exit_code:
                raise failed(board, done, "a file OpenVINO can run")
            found[name] = parse_benchmark_app(done.out)
        return found


BENCHMARK_APP = BenchmarkApp()
