"""The proofs of a build, in the order they are made and judged; agreement.py holds its artifacts together."""

from __future__ import annotations

from edgekit.pipeline.proofs.audit import AUDIT
from edgekit.pipeline.proofs.drift import DRIFT
from edgekit.pipeline.proofs.fidelity import FIDELITY
from edgekit.pipeline.proofs.latency import LATENCY
from edgekit.pipeline.proofs.proof import Asked, Proof
from edgekit.pipeline.proofs.tensorflow import TENSORFLOW
from edgekit.pipeline.proofs.times import TIMES

PROOFS: tuple[Proof, ...] = (FIDELITY, DRIFT, AUDIT, TENSORFLOW, LATENCY, TIMES)

__all__ = ["PROOFS", "Asked", "Proof"]
