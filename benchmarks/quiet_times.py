"""Times for a benchmark, in a process that a command of the user's may run while the machine is quiet.

    python benchmarks/quiet_times.py JOB.json

JOB.json: {"files": {name: path of a .tflite}, "reference": one of the names, "processes": n, "out": path}
times the files in turns and writes {name: {"p50_ms", "ratio": [p50 over the reference's, low, high]}}.
{"graph": path, "name", "tables": folder} times the fused units of a captured graph, and narrower ones, into
the machine's table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgekit.device.host import HostFile, measure_here
from edgekit.device.profiles import Profile
from edgekit.files import write_atomic

TARGET = "tflite-int8"
NARROWER = 2  # forms of each unit


def files(job: dict[str, Any]) -> None:
    profile = Profile("benchmark", job["processes"], 150, 0.0, 1.5, 10, 0.3)
    asked = {name: HostFile(path, "litert", "ai-edge-litert") for name, path in job["files"].items()}
    found = measure_here(asked, profile)
    rows = {
        name: {"p50_ms": one.p50_ms, "ratio": found.ratio(name, job["reference"])}
        for name, one in found.files.items()
    }
    write_atomic(Path(job["out"]), json.dumps(rows))


def units(job: dict[str, Any]) -> None:
    from edgekit.cost.measure import measure  # torch: nothing to load while all else stands still
    from edgekit.cost.models import of_graph
    from edgekit.cost.widths import narrower
    from edgekit.device.inventory import HOST, load_inventory
    from edgekit.graph.file import load

    model = of_graph(job["name"], load(Path(job["graph"])), TARGET)
    device = load_inventory(None).device(HOST)
    measure(device, [model], narrower(model.units, NARROWER), root=Path(job["tables"]))


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    units(given) if "graph" in given else files(given)
