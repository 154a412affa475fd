"""Two thousand jobs on twenty simulated boards: what the farm costs, and whether every board was used alone.

`python benchmarks/farm_scale.py` makes 100 small artifacts and measures each on 20 boards that are made up
(benchmarks/simulated; the locks, the work directories and the pushes are real), on one LocalCluster and
through the same path as `edgekit farm run`. With --kill the boards are served by four worker processes, one
of which is killed with SIGKILL in the middle and started again.

What the farm costs a job is the time its board stood still between two jobs, and, over the whole run, the
wall clock beyond the time the busiest board was in use, divided by all jobs. Exclusive use is read from the
start and end of every record and from the simulated boards' own log. Leaves: results/farm_scale.json and .md
(with --kill farm_scale_kill).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "simulated"))  # the plugin of the boards
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

import edgekit
from edgekit.device.inventory import load_inventory
from edgekit.farm import plan, report, state
from edgekit.farm.run import Run
from edgekit.farm.scheduler import connect, find_boards
from edgekit.files import write_atomic
from edgekit.history import History

HERE = Path(__file__).resolve().parent
WORKERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--boards", type=int, default=20)
    parser.add_argument("--ms", type=float, default=400.0, help="of one process on a board; a job has two")
    parser.add_argument("--kill", action="store_true", help="worker processes, one of which is killed")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    if arguments.jobs < arguments.boards or arguments.boards < WORKERS:
        parser.error(f"at least {WORKERS} boards and as many jobs")
    with tempfile.TemporaryDirectory(prefix="ek-farm-") as folder:
        os.environ["EDGEKIT_CACHE"] = str(Path(folder, "cache"))
        content = facts(arguments) | scale(Path(folder), arguments)
    name = "farm_scale_kill" if arguments.kill else "farm_scale"
    write_atomic(arguments.out / f"{name}.json", json.dumps(content, indent=2) + "\n")
    write_atomic(arguments.out / f"{name}.md", markdown(content))
    print(markdown(content))
    sys.exit(bool(content["overlaps"] or content["lost"] or content["log_overlaps"]))


def scale(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the jobs and read what happened from the records."""
    log, inventory = folder / "log", folder / "devices.toml"
    inventory.write_text(boards(arguments.boards, arguments.ms, log, folder))
    models = folder / "models"
    models.mkdir()
    for i in range(arguments.jobs // arguments.boards):
        (models / f"model{i:03d}.tflite").write_text(f"model{i:03d}.tflite")  # as the boards want it
    artifacts = plan.find_artifacts(sorted(models.iterdir()))
    killed: list[float] = []
    with cluster(inventory, arguments, killed) as client:
        found = find_boards(client, [f"sim-{i:02d}" for i in range(arguments.boards)])
        jobs = plan.plan(artifacts, found, plan.Settings()).jobs
        header = {"jobs": [job.id for job in jobs]}
        with state.create(folder / "out", header) as journal, History(folder / "history.sqlite") as history:
            run = Run(client, jobs, found, journal, history, on_row=_printer(len(jobs)))
            began = time.monotonic()
            run.go()
            wall_s = time.monotonic() - began
            rows = list(journal.rows.values())
            began = time.monotonic()
            content = report.build(journal, list(run.rows.values()), found, history)
            written = report.write(folder / "out", content)
            report_s = time.monotonic() - began
    return judged(rows, jobs, wall_s, log) | {
        "killed_at_s": killed,
        "report_s": report_s,
        "report_bytes": written.stat().st_size,
    }


def judged(rows: list[dict[str, Any]], jobs: Any, wall_s: float, log: Path) -> dict[str, Any]:
    """Exclusive use, what got lost, and what the farm cost."""
    of_board: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of_board[row["device"]].append(row)
    gaps, occupied = [], []
    for runs in of_board.values():
        runs.sort(key=lambda row: row["start_ns"])
        gaps += [(b["start_ns"] - a["end_ns"]) / 1e6 for a, b in pairwise(runs)]
        occupied.append(sum(row["end_ns"] - row["start_ns"] for row in runs) / 1e9)
    return {
        "jobs": len(jobs),
        "boards": len(of_board),
        "valid": sum(row["status"] == state.VALID for row in rows),
        "lost": len(jobs) - len({row["job"] for row in rows if row["status"] == state.VALID}),
        "overlaps": len(state.overlaps(rows)),
        "log_overlaps": _log_overlaps(log),
        "wall_s": wall_s,
        "busiest_board_s": max(occupied),
        "overhead_ms_a_job": 1e3 * (wall_s - max(occupied)) / len(jobs),
        "gap_ms": {f"p{p}": float(np.percentile(gaps, p)) for p in (50, 90, 99)},
    }


def _log_overlaps(log: Path) -> int:
    """The boards' own witness: starts that came before the end of the one before. A kill leaves no end."""
    events: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        board, _, event, at, process = line.split()
        events[board].append((int(at), event, process))
    found = 0
    for of_board in events.values():
        running: str | None = None
        for _, event, process in sorted(of_board):
            if event == "start":
                found += running == process  # another process: the one before was killed
                running = process
            else:
                running = None
    return found


@contextmanager
def cluster(inventory: Path, arguments: argparse.Namespace, killed: list[float]) -> Iterator[Any]:
    """A client of a LocalCluster with every board in this process, or of one with worker processes."""
    devices = list(load_inventory(inventory).devices.values())
    if not arguments.kill:
        with connect(None, devices) as client:
            yield client
        return
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as local:
        address = local.scheduler_address
        share = [inventory.with_name(f"devices-{i}.toml") for i in range(WORKERS)]
        for i, path in enumerate(share):
            path.write_text(
                boards(arguments.boards, arguments.ms, inventory.parent / "log", inventory.parent, i)
            )
        processes = [_worker(address, path) for path in share]

        def kill() -> None:
            killed.append(time.monotonic() - began)
            processes[1].send_signal(signal.SIGKILL)
            processes[1].wait()
            time.sleep(2.0)
            processes.append(_worker(address, share[1]))

        try:
            with connect(address, ()) as client:
                while sum(map(len, _advertised(client).values())) < arguments.boards:
                    time.sleep(0.2)
                began = time.monotonic()
                timer = threading.Timer(
                    0.4 * arguments.jobs / arguments.boards * 2 * arguments.ms / 1e3, kill
                )
                timer.start()
                yield client
                timer.join()
        finally:
            for process in processes:
                process.terminate()
                process.wait()


def _advertised(client: Any) -> dict[str, Any]:
    return {address: about["resources"] for address, about in client.scheduler_info(-1)["workers"].items()}


def _worker(address: str, inventory: Path) -> subprocess.Popen[bytes]:
    command = "from edgekit.cli.main import main; main()"
    words = ["farm", "worker", "--scheduler", address, "--inventory", str(inventory)]
    path = os.pathsep.join([str(HERE.parent), str(HERE / "simulated")])
    return subprocess.Popen(
        [sys.executable, "-c", command, *words],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def boards(count: int, ms: float, log: Path, folder: Path, share: int | None = None) -> str:
    """An inventory of simulated boards; `share`: the part of one of the workers."""
    lines = ["schema_version = 1"]
    for i in range(count):
        if share is None or i % WORKERS == share:
            base = folder / f"board-{i:02d}"  # a board's lock lies in its base
            base.mkdir(exist_ok=True)
            env = f'{{ SIM_MS = "{ms:g}", SIM_LOG = "{log}" }}'
            lines.append(
                f'[devices.sim-{i:02d}]\nkind = "simulated"\ntransport = {{ type = "local" }}\n'
                f'emulated = true\nbase = "{base}"\nenv = {env}'
            )
    return "\n".join(lines) + "\n"


def _printer(total: int) -> Any:
    ended: list[str] = []

    def say(row: dict[str, Any]) -> None:
        ended.append(row["status"])
        if len(ended) % 200 == 0:
            print(f"{len(ended)} of {total} jobs", file=sys.stderr, flush=True)

    return say


def facts(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "command": f"python benchmarks/farm_scale.py{' --kill' * arguments.kill} --ms {arguments.ms:g}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "edgekit": edgekit.__version__,
        "distributed": version("distributed"),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def markdown(content: dict[str, Any]) -> str:
    gap = content["gap_ms"]
    rows = [
        ("jobs, boards", f"{content['jobs']:,}, {content['boards']}"),
        ("measured", f"{content['valid']:,}"),
        ("lost", f"{content['lost']}"),
        ("jobs that shared a board, from the records", f"{content['overlaps']}"),
        ("jobs that shared a board, from the boards' own log", f"{content['log_overlaps']}"),
        (
            "worker killed after",
            ", ".join(f"{at:.0f} s" for at in content["killed_at_s"]) or "not in this run",
        ),
        ("wall clock", f"{content['wall_s']:.1f} s"),
        ("busiest board in use", f"{content['busiest_board_s']:.1f} s"),
        ("overhead over the run", f"{content['overhead_ms_a_job']:.2f} ms a job"),
        (
            "a board stands still between two jobs",
            f"p50 {gap['p50']:.1f}, p90 {gap['p90']:.1f}, p99 {gap['p99']:.1f} ms",
        ),
        ("report over all", f"{content['report_s']:.1f} s, {content['report_bytes'] / 1e6:.1f} MB"),
    ]
    head = (
        f"# The farm at scale\n\n`{content['command']}`, {content['date']}, {content['cores']} cores "
        f"(load {content['load']:.1f} when it began), Python {content['python']}, distributed "
        f"{content['distributed']}, edgekit {content['edgekit']}. Simulated boards: their measuring is "
        "made up, the queue, locks, pushes, journal, history and report are real.\n\n| | |\n|---|---|\n"
    )
    return head + "".join(f"| {name} | {value} |\n" for name, value in rows)


if __name__ == "__main__":
    main()
