"""LiteRT's benchmark_model: its log -> figures of one file. It gives no raw samples, no p90 and no p99.

Microseconds. Older builds print no INFO prefix and no percentiles; `count=1` has only `curr=`; numbers may be
1.04176e+06.
"""

from __future__ import annotations

import re

from edgekit.device.harness import Board, FileRun, Harness, Runtime, Task, failed
from edgekit.errors import DeviceJobError

_STATISTICS = re.compile(r"^(?:INFO: )?count=(\d+) (.*)$")
_DELEGATED = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\).*yielding (\d+) part"
)
_TIMINGS = re.compile(r"Inference timings in us: Init: ([0-9.e+]+), First inference: ([0-9.e+]+),")
_MEMORY = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): (.*)"
)


def parse_benchmark_model(log: str) -> FileRun:
    """Figures of a log. Raises: DeviceJobError for a log without them."""
    run, found = FileRun(), False
    partitions = 0
    for raw in log.splitlines():
        line = raw.strip()
        if match := _STATISTICS.match(line):  # the warm-up comes first, the measurement last
            values = {key: float(value) for key, value in re.findall(r"(\w+)=([0-9.e+]+)", match[2])}
            run.count = int(match[1])
            central = values.get("median", values.get("avg", values.get("curr")))
            if central is not None:
                run.summary_ms = {"p50": central / 1e3}
                run.notes = (
                    [] if "median" in values else ["p50 is the mean: this benchmark_model prints no median"]
                )
                run.summary_ms |= {
                    name: values[key] / 1e3
                    for name, key in (("p95", "p95"), ("mean", "avg"))
                    if key in values
                }
                found = True
        elif match := _DELEGATED.search(line):
            partitions += 1 if int(match[1]) == int(match[2]) else (int(match[4]) + 1) // 2
            run.delegate = _delegate(match[3])
        elif match := _TIMINGS.search(line):
            run.init_ns, run.first_ns = int(float(match[1]) * 1e3), int(float(match[2]) * 1e3)
        elif match := _MEMORY.search(line):
            overall = re.search(r"overall=([0-9.e+]+)", match[1])
            run.memory_bytes = int(float(overall[1]) * 2**20) if overall else None
    if not found:
        raise DeviceJobError(
            "benchmark_model: a log without statistics: lines like 'count=50 first=... avg=...'"
        )
    run.partitions = partitions
    return run


def _delegate(name: str) -> str:
    known = {"TfLiteXNNPackDelegate": "xnnpack", "TfLiteGpuDelegateV2": "gpu", "TfLiteNnapiDelegate": "nnapi"}
    return known.get(name, name)


class BenchmarkModel(Harness):
    """The vendor's own binary, one file a process; A and B take turns by processes."""

    name = "benchmark_model"
    formats = (".tflite",)
    delegates = ("xnnpack", "none", "gpu", "nnapi")

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        tool = board.tool(self.name)
        done = board.run([tool, "--help"], 60)
        if done.exit_code in (126, 127) or "not found" in done.err:
            raise failed(board, done, f"benchmark_model on the board, its path as tools.{self.name}")
        return Runtime(self.name, "unknown: it prints none")

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        plan = task.profile
        found = {}
        for name, path in task.files.items():
            argv = [
                board.tool(self.name),
                f"--graph={path}",
                f"--num_threads={task.threads}",
                f"--num_runs={plan.samples}",
                f"--min_secs={plan.seconds}",
                f"--max_secs={plan.max_seconds}",
                f"--warmup_runs={max(1, plan.warmup)}",
                f"--warmup_min_secs={plan.warmup_seconds}",
                f"--use_xnnpack={str(task.delegate == 'xnnpack').lower()}",
                *([f"--use_{task.delegate}=true"] if task.delegate in ("gpu", "nnapi") else []),
            ]
            done = board.run(argv)
            if done.exit_code:
                raise failed(board, done, "a file benchmark_model can run")
            found[name] = parse_benchmark_model(done.out + "\n" + done.err)
        return found


BENCHMARK_MODEL = BenchmarkModel()
