"""Proofs against thresholds: evidence -> Gates, each with what was found, where, and what to try.

A gate judges only evidence it is given; a threshold of None switches it off. A failed gate names the layer
and the module it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgekit.runtimes.audit import Audit
from edgekit.runtimes.delegation import Delegation
from edgekit.runtimes.tensorflow.run import TensorflowCheck
from edgekit.verify.agreement import Agreement, Divergence
from edgekit.verify.drift import Drift
from edgekit.verify.fidelity import Fidelity, FloatFidelity
from edgekit.verify.latency import Latency
from edgekit.verify.layers import LayerError
from edgekit.verify.runtime_fidelity import RuntimeFidelity

_RELATIVE = 1e-4  # of a float output, between two interpreters


@dataclass(frozen=True)
class Thresholds:
    """What a build must reach. None: not judged.

    max_drop: points of top-1. `proven_drop` demands that the whole interval stays below it, not only the
        estimate. max_latency_ratio: artifact p50 over float p50. min_pairwise_agreement: percent of images on
        which two int8 artifacts of different formats answer alike.
    """

    max_lsb: int | None = 1
    min_float_sqnr_db: float | None = 30.0
    max_drop: float | None = 1.0
    proven_drop: bool = False
    min_agreement: float | None = None
    max_partitions: int | None = 1
    max_undelegated_ops: int | None = 0
    max_transposes: int | None = 0
    min_int8_share: float | None = 1.0
    min_int8_macs_share: float | None = None
    max_size_bytes: int | None = None
    max_latency_ratio: float | None = 1.0
    min_pairwise_agreement: float | None = 99.0

    @classmethod
    def for_target(cls, activations: str, weights: str, format: str = "tflite") -> Thresholds:
        """Defaults by kind of target: only int8 promises delegation, int8 arithmetic and speed.

        ONNX Runtime and OpenVINO are fastest with some operators in float and reorder tensors on their own:
        int8 is promised there for most MACs and for every operator that the file quantizes.
        """
        if activations == "int8" and format != "tflite":
            return cls(max_transposes=None, min_int8_share=None, min_int8_macs_share=0.5)
        if activations == "int8":
            return cls()
        unpromised = cls(
            max_partitions=None,
            max_undelegated_ops=None,
            max_transposes=0 if format == "tflite" else None,
            min_int8_share=None,
            max_latency_ratio=None,
        )
        if activations == "float32" and weights != "int8":
            return replace(unpromised, min_float_sqnr_db=80.0 if weights == "float32" else 35.0)
        return replace(unpromised, min_float_sqnr_db=15.0)


@dataclass(frozen=True)
class Gate:
    """One judgement. `hint` says what to try, and is empty when the gate passed."""

    name: str
    ok: bool
    detail: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What was proven about one artifact; None where it was not looked at.

    latency_names: the names under which `latency` holds the artifact and the float model.
    pairwise: how artifacts answer beside each other; it concerns a whole build, so it is judged in an
        Evidence of its own. divergences: (first, second) of a pair -> where the two part.
    """

    fidelity: Fidelity | RuntimeFidelity | FloatFidelity | None = None
    drift: Drift | None = None
    audit: Audit | None = None
    delegation: Delegation | None = None
    latency: Latency | None = None
    latency_names: tuple[str, str] = ("int8", "float")
    layers: Sequence[LayerError] = ()
    pairwise: Agreement | None = None
    divergences: Mapping[tuple[str, str], Divergence] = field(default_factory=dict)
    tensorflow: TensorflowCheck | None = None


def judge(evidence: Evidence, thresholds: Thresholds | None = None) -> list[Gate]:
    """Every gate for which there is a threshold and evidence, in the order a reader asks."""
    limits = thresholds or Thresholds()
    gates: list[Gate | None] = [
        *_fidelity(evidence, limits),
        *_drift(evidence, limits),
        *_delegation(evidence, limits),
        *_audit(evidence, limits),
        _latency(evidence, limits),
        _tensorflow(evidence, limits),
        *_pairwise(evidence, limits),
    ]
    return [gate for gate in gates if gate is not None]


def _gate(name: str, ok: bool, detail: str, hint: str) -> Gate:
    return Gate(name, ok, detail, "" if ok else hint)


def _fidelity(evidence: Evidence, limits: Thresholds) -> list[Gate]:
    found = evidence.fidelity
    if isinstance(found, FloatFidelity):
        if limits.min_float_sqnr_db is None:
            return []
        ok = found.sqnr_db >= limits.min_float_sqnr_db
        detail = (
            f"outputs at {found.sqnr_db:.1f} dB of the graph's, at least {limits.min_float_sqnr_db:g} wanted"
        )
        return [_gate("fidelity", ok, detail, "report this: a lowering is wrong")]
    if found is None or limits.max_lsb is None:
        return []
    worst = found.worst
    detail = f"{found.checked_ops} operators on {found.images} images, at most {found.max_lsb} LSB apart"
    ok = found.max_lsb <= limits.max_lsb and found.probe_agrees
    if not found.probe_agrees:
        detail = "the probe file and the shipped file answer differently"
    elif not ok and worst is not None:
        detail += f", {worst.op} at {worst.module} ({worst.mismatch_share:.1%} of {worst.value})"
    return [
        _gate("fidelity", ok, detail, "report this: the runtime and the simulation disagree on an operator")
    ]


def _drift(evidence: Evidence, limits: Thresholds) -> list[Gate]:
    found, gates = evidence.drift, []
    if found is None:
        return []
    culprits = ", ".join(str(layer) for layer in list(evidence.layers)[:3])
    where = f"; the error comes from {culprits}" if culprits else ""
    if limits.max_drop is not None and found.metric == "top1":
        gates.append(_drop_gate(found, limits.max_drop, limits.proven_drop, where))
    if limits.min_agreement is not None:
        ok = found.agreement >= limits.min_agreement
        detail = f"{found.agreement:.2f} % of {found.n} answers agree, {limits.min_agreement:g} wanted"
        gates.append(_gate("agreement", ok, detail + ("" if ok else where), _CURES))
    return gates


_CURES = (
    "more calibration images, the thorough profile, or tflite-dynamic-int8, which keeps activations in float"
)


def _drop_gate(found: Drift, limit: float, proven: bool, where: str) -> Gate:
    """Pass on the estimate (or, if asked, on the interval); say when the images cannot decide."""
    ok = (found.ci_high if proven else found.drop) <= limit
    detail = (
        f"top-1 {found.reference:.2f} -> {found.artifact:.2f} %, drop {found.drop:.2f} points "
        f"[{found.ci_low:.2f}, {found.ci_high:.2f}] on {found.n} images, {limit:g} allowed"
    )
    undecided = found.ci_low <= limit < found.ci_high
    if undecided:
        half, distance = (found.ci_high - found.ci_low) / 2, abs(limit - found.drop)
        wanted = math.ceil(found.n * (half / distance) ** 2) if distance > 0.01 else 10 * found.n
        detail += (
            f" (the interval holds both answers; about {min(wanted, 100 * found.n)} images would decide)"
        )
    return _gate("drift", ok, detail + ("" if ok else where), _CURES)


def _delegation(evidence: Evidence, limits: Thresholds) -> list[Gate]:
    found, gates = evidence.delegation, []
    if found is None:
        return []
    left = ", ".join(str(op) for op in found.undelegated_ops[:3])
    more = len(found.undelegated_ops) - 3
    named = f": {left}{f' and {more} more' if more > 0 else ''}" if left else ""
    hint = "replace the named operators by ones the delegate takes; edgekit inspect lists where each runs"
    if limits.max_partitions is not None:
        ok = 1 <= found.partitions <= limits.max_partitions
        detail = f"{found.partitions} delegate partitions, {limits.max_partitions} allowed"
        if not found.partitions:
            detail = f"the delegate took nothing of {found.operators} operators"
        gates.append(_gate("partitions", ok, detail + ("" if ok else named), hint))
    if limits.max_undelegated_ops is not None:
        count = len(found.undelegated_ops)
        ok = count <= limits.max_undelegated_ops
        detail = f"{count} of {found.operators} operators outside the delegate"
        gates.append(_gate("delegation", ok, detail + named, hint))
    return gates


def _audit(evidence: Evidence, limits: Thresholds) -> list[Gate]:
    found, gates = evidence.audit, []
    if found is None:
        return []
    if limits.max_transposes is not None:
        ok = len(found.transposes) <= limits.max_transposes
        detail = f"{len(found.transposes)} TRANSPOSE, {limits.max_transposes} allowed"
        where = f": {', '.join(found.transposes[:3])}" if found.transposes else ""
        gates.append(_gate("layout", ok, detail + where, "avoid the reshape or permute in the named modules"))
    if limits.min_int8_share is not None or limits.min_int8_macs_share is not None:
        ok = found.int8_ops_share >= (limits.min_int8_share or 0.0)
        ok = ok and found.int8_macs_share >= (limits.min_int8_macs_share or 0.0)
        detail = f"{found.int8_ops_share:.1%} of operators and {found.int8_macs_share:.1%} of MACs in int8"
        islands = list(dict.fromkeys((*found.float_ops, *found.dynamic_ops)))
        where = f", float: {', '.join(islands[:3])}" if islands else ""
        gates.append(
            _gate("int8", ok, detail + where, "replace the named operators, or lower min_int8_share")
        )
    if limits.max_size_bytes is not None:
        ok = found.size_bytes <= limits.max_size_bytes
        detail = f"{found.size_bytes:,} bytes, {limits.max_size_bytes:,} allowed"
        largest = next(iter(found.bytes_by_module().items()), None)
        where = f"; most in {largest[0]} ({largest[1]:,})" if largest and not ok else ""
        gates.append(_gate("size", ok, detail + where, "prune, or narrow the named layer"))
    return gates


def _latency(evidence: Evidence, limits: Thresholds) -> Gate | None:
    found = evidence.latency
    if found is None or limits.max_latency_ratio is None:
        return None
    artifact, reference = evidence.latency_names
    if artifact not in found.files or reference not in found.files:
        return None
    ratio, low, high = found.ratio(artifact, reference)
    ok = ratio <= limits.max_latency_ratio
    detail = (
        f"{found.files[artifact].p50_ms:.2f} ms against {found.files[reference].p50_ms:.2f} ms float, "
        f"x{ratio:.2f} [{low:.2f}, {high:.2f}], x{limits.max_latency_ratio:g} allowed "
        f"({found.profile}, {found.processes} processes, {found.threads} threads)"
    )
    left = evidence.delegation.undelegated_ops if evidence.delegation else ()
    hint = "measure again on an idle machine"
    if left:
        hint = f"{left[0]} is not delegated: give it a form the delegate takes"
    return _gate("latency", ok, detail, hint)


def _tensorflow(evidence: Evidence, limits: Thresholds) -> Gate | None:
    """TensorFlow's interpreter with the kernels it takes by itself; its reference kernels are told beside."""
    found = evidence.tensorflow
    if found is None or limits.max_lsb is None:
        return None
    own = [row for row in found.outputs if row.kernels == "default"]
    steps = max((row.max_lsb for row in own if row.max_lsb is not None), default=None)
    relative = max(row.max_relative_error for row in own)
    ok = steps <= limits.max_lsb if steps is not None else relative <= _RELATIVE
    apart = f"{steps} LSB" if steps is not None else f"{relative:.1e} relative"
    detail = f"{apart} apart with its default kernels; {found}"
    return _gate("tensorflow", ok, detail, "report this: two interpreters disagree on the same file")


def _pairwise(evidence: Evidence, limits: Thresholds) -> list[Gate]:
    """One gate a pair, named after it."""
    found, limit = evidence.pairwise, limits.min_pairwise_agreement
    gates = []
    for pair in found.pairs if found is not None and limit is not None else ():
        assert found is not None and limit is not None
        ok = pair.agreement >= limit
        detail = (
            f"{pair} agree on {pair.agreement:.2f} % of {found.n} images, {limit:g} wanted, "
            f"{pair.sqnr_db:.1f} dB apart"
        )
        where = evidence.divergences.get((pair.first, pair.second))
        if not ok and where is not None:
            detail += f"; they part at {where}"
        hint = (
            "answers close to a tie: quantize thoroughly, calibrate on more images, or accept less "
            "([verify] min_pairwise_agreement)"
        )
        gates.append(_gate(f"agreement {pair.first} {pair.second}", ok, detail, hint))
    return gates
