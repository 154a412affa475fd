"""What a build works on and what it collects: Job, Built, Run. Data only; the pipeline fills them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import GateError

if TYPE_CHECKING:
    import torch

    from edgekit.data.source import Given, Source
    from edgekit.device.host import Latency
    from edgekit.graph.ir import Graph
    from edgekit.lower.ports import Ports
    from edgekit.passes import PassRecord
    from edgekit.pipeline.recipe import Recipe
    from edgekit.pipeline.variant import Variant
    from edgekit.runtimes.audit import Audit, Delegation
    from edgekit.targets import Target
    from edgekit.tasks import Drift, Task
    from edgekit.verify.agreement import Agreement, Divergence
    from edgekit.verify.fidelity import Fidelity, FloatFidelity
    from edgekit.verify.layers import LayerError
    from edgekit.verify.runtime_fidelity import RuntimeFidelity


@dataclass(frozen=True)
class Job:
    """A model, in the form that is built, with its weights and images."""

    name: str
    variant: Variant
    examples: tuple[torch.Tensor, ...]  # one an input, (1, ...)
    weights: dict[str, Any]
    calibration: Source | Given
    evaluation: Source | Given | None
    class_names: tuple[str, ...] | None
    preprocessing: dict[str, Any] | None

    @property
    def file_name(self) -> str:
        """The model's name as a directory's."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.name).strip("._") or "model"


@dataclass(frozen=True)
class Quantized:
    """An annotated graph, and what the quantization that made it found; None where a file brought it.

    report: what each part gained. means: a safetensors file, see `QuantizeResult.means`.
    """

    graph: Graph
    report: dict[str, Any] | None
    means: Path | None


@dataclass
class Built:
    """One model and the evidence about it; None where it was not looked at.

    files: relative name -> path, the one to load first. sha256s: the same names -> content hash.
    tensors: graph value -> name of the tensor that holds it. ports: where its inputs and outputs lie.
    modules: tensor name -> module path. nodes: for each operator of the file, the index of its node in
    `prepared`, -1 for none. io: the dtype asked for the file's inputs and outputs, None for the target's own.
    quantization: what each part of it gained, None for a float model. quantizer: who chose its integers,
    "edgekit" or "nncf".
    pictures: a folder with flipped images, INDEX.png and sheet.png.
    found: what proofs found that nobody else reads, by their names.
    """

    target: Target
    files: dict[str, Path]
    sha256s: dict[str, str]
    prepared: Graph
    tensors: dict[str, str]
    ports: Ports
    modules: dict[str, str]
    nodes: list[int]
    io: str | None
    quantization: dict[str, Any] | None
    quantizer: str
    audit: Audit | None = None
    delegation: Delegation | None = None
    fidelity: Fidelity | RuntimeFidelity | FloatFidelity | None = None
    errors: list[LayerError] = field(default_factory=list)
    drift: Drift | None = None
    latency: Latency | None = None
    pictures: Path | None = None
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """What a runtime is given to load."""
        return next(iter(self.files.values()))

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


@dataclass
class Form:
    """A variant of a build's chain as the proofs see it.

    graph: optimized. changed: what it lost in float against the original; None for that one.
    timed: what was built of it for its milliseconds alone, by target, with the float models it is held
    against; of the form that is built in earnest nothing. untimed: target -> why it was not.
    predicted: target -> milliseconds on this machine, where its units were timed before.
    """

    variant: Variant
    graph: Graph
    changed: Drift | None = None
    timed: dict[str, Built] = field(default_factory=dict)
    untimed: dict[str, str] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreed:
    """How the int8 artifacts of a build answer beside each other; where a pair parts, by its two targets."""

    agreement: Agreement
    divergences: dict[tuple[str, str], Divergence]


@dataclass(frozen=True)
class Artifact:
    """A written model file; `rejected` when a gate of its target failed."""

    path: Path
    rejected: bool


@dataclass(frozen=True)
class Run:
    """What a build left behind. `report` is the content of report.json."""

    directory: Path
    report: dict[str, Any]
    artifacts: dict[str, Artifact]

    @property
    def ok(self) -> bool:
        return all(gate["ok"] for gate in self.report["gates"])

    def raise_for_gates(self) -> None:
        """Raises: GateError naming every gate that failed and what to try."""
        gates = [gate for gate in self.report["gates"] if gate.get("judged", True)]
        failed = [gate for gate in gates if not gate["ok"]]
        if failed:
            lines = [f"{g['target']} {g['name']}: {g['detail']} ({g['hint']})" for g in failed]
            raise GateError(f"{len(failed)} of {len(gates)} gates failed: {'; '.join(lines)}")


@dataclass(frozen=True)
class Facts:
    """Everything a build found out. forms: from the original to what was built, whose graph `graph` is."""

    recipe: Recipe
    job: Job
    graph: Graph
    forms: list[Form]
    rewrites: list[PassRecord]
    task: Task
    reference: Path | None
    built: list[Built]
    baselines: dict[str, Built]
    together: Agreed | None
