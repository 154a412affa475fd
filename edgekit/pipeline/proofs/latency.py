"""Every artifact this machine has a runtime for, timed in turns with the float models it is held against, and
with the same of the forms that it was made from: a gain against the original is measured in one run.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.host import FileLatency, Latency, machine
from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.proofs.proof import Asked, Proof
from edgekit.pipeline.proofs.run import runtime_of
from edgekit.pipeline.session import Line
from edgekit.pipeline.timing import latency
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import Promises
from edgekit.verify.gates import Evidence, Gate, latency_gate


def prove(asked: Asked, built: list[Built]) -> None:
    device, baselines = asked.recipe.device, asked.baselines
    timed_here = [one for one in built if RUNTIMES[one.target.runtime].host]
    if device.profile == "off" or not timed_here:
        return
    names = [*dict.fromkeys(one.target.baseline for one in timed_here)]
    files = {name: baselines[name] for name in names} | {one.target.name: one for one in timed_here}
    for form in asked.forms:
        files |= {f"{form.variant.step} {name}": one for name, one in form.timed.items()}

    def make(directory: Path, line: Line) -> None:
        measured = latency(
            {name: one.file for name, one in files.items()},
            profile=device.profile,
            threads=device.threads,
            progress=line.advance,
        )
        (directory / "latency_samples.json").write_text(measured.samples_json())
        rows = {name: asdict(row) for name, row in measured.files.items()}
        (directory / "latency.json").write_text(json.dumps({"files": rows, "processes": measured.processes}))

    key = {
        "files": {name: one.sha256s for name, one in files.items()},
        "device": repr(device),
        "runtime": {name: runtime_of(one.target) for name, one in files.items()},
        "machine": machine()["cpu"],
    }
    directory = asked.session.stage("latency", key, make, device.profile)
    content = json.loads((directory / "latency.json").read_text())
    raw = json.loads((directory / "latency_samples.json").read_text())
    measured = Latency(
        files={name: FileLatency(**row) for name, row in content["files"].items()},
        samples_ns={name: [np.array(r) for r in runs] for name, runs in raw["samples_ns"].items()},
        profile=raw["profile"],
        processes=content["processes"],
        threads=raw["threads"],
        runtime=raw["runtime"],
        machine=raw["machine"],
    )
    for one in files.values():
        one.latency = measured


def gates(one: Built, promises: Promises) -> list[Gate]:
    found = Evidence(
        target=one.target,
        latency=one.latency,
        latency_names=(one.target.name, one.target.baseline),
        delegation=one.delegation,
    )
    gate = latency_gate(found, promises)
    return [gate] if gate is not None else []


def section(_facts: Facts, one: Built) -> dict[str, Any]:
    if one.latency is None:
        return {}
    name, base = one.target.name, one.target.baseline
    floats = one.latency.files[base]
    milliseconds = {
        key: [np.round(run / 1e6, 4).tolist() for run in one.latency.samples_ns[file]]
        for key, file in (("artifact_ms", name), ("float_ms", base))
    }
    content = one.latency.as_dict(name, base) | {
        "float_p90_ms": floats.p90_ms,
        "float_p99_ms": floats.p99_ms,
        "float_target": base,
        "note": one.latency.machine["note"],
        "samples": milliseconds,
        "samples_file": f"{name}/latency_samples.json",
    }
    return {"latency": content}


LATENCY = Proof("latency", prove, gates, section)
