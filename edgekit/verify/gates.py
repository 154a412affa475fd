"""Proofs against promises: evidence -> Gates, each with what was found, where, and what to try.

A gate judges only evidence it is given, against the threshold that a target promises or a recipe asks. One
that a recipe switched off is a remark: what was found, shown and not judged. So is what only a runtime
elsewhere could tell. A failed gate names the layer and the module it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgekit.runtimes.audit import Audit, Delegation
from edgekit.runtimes.tensorflow.run import TensorflowCheck
from edgekit.targets import Promises, Target, get_target
from edgekit.targets.words import Words
from edgekit.tasks.record import Drift
from edgekit.verify.agreement import Agreement, Divergence
from edgekit.verify.fidelity import Fidelity, FloatFidelity
from edgekit.verify.layers import LayerError
from edgekit.verify.runtime_fidelity import RuntimeFidelity

if TYPE_CHECKING:
    from edgekit.device.host import Latency

_SCORES = {"top1": "top-1", "miou": "mean IoU"}  # metrics against labels, with what they are called
_GOOD_DB = 25.0  # outputs that nothing else judges, below it, are remarked on
_EQUAL = 0.999  # of whole numbers, such as indices, between a float file and its graph: ties may fall apart
_RELATIVE = 1e-4  # of a float output, between two interpreters


@dataclass(frozen=True)
class Gate:
    """One judgement. `hint` says what to try, and is empty when the gate passed.

    judged: False for a remark, which is always ok.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""
    judged: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What was proven about one artifact; None where it was not looked at.

    target: whose words are used; without one, those of the runtimes with a delegate.
    latency_names: the names under which `latency` holds the artifact and the float model.
    pairwise: how artifacts answer beside each other; it concerns a whole build, so it is judged in an
        Evidence of its own. divergences: (first, second) of a pair -> where the two part.
    """

    target: Target | None = None
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

    @property
    def words(self) -> Words:
        return self.target.words if self.target is not None else get_target("tflite-int8").words


def judge(evidence: Evidence, promises: Promises) -> list[Gate]:
    """Every gate for which there is a threshold and evidence, in the order a reader asks."""
    gates: list[Gate | None] = [
        _fidelity(evidence, promises),
        *_drift(evidence, promises),
        *_delegation(evidence, promises),
        *_audit(evidence, promises),
        latency_gate(evidence, promises),
        _tensorflow(evidence, promises),
        *_pairwise(evidence, promises),
    ]
    return [gate for gate in gates if gate is not None]


class _Row:
    """One gate in the making: the thresholds it stands on, and whether it is judged by them."""

    def __init__(
        self, promises: Promises, *thresholds: str, elsewhere: str = "", images: int | None = None
    ) -> None:
        self.asked = promises.judges(*thresholds)
        least = promises.min_images
        few = images is not None and least is not None and images < least
        self.judged = bool(self.asked) and not elsewhere and not few
        off = [name for name in thresholds if name in promises.remarks]
        if elsewhere:
            self.why = f"{elsewhere} decides this where it runs"
        elif few and self.asked:
            self.why = f"{images} images are too few to judge by, at least {least}"
        else:
            self.why = f"{', '.join(off)} is off"

    def gate(self, name: str, ok: bool, found: str, limit: str = "", where: str = "", hint: str = "") -> Gate:
        """`found`, then `limit` where the gate is judged by one, then `where`."""
        if not self.judged:
            return Gate(name, True, f"{found}{where}; not judged: {self.why}", judged=False)
        return Gate(name, ok, f"{found}{limit}{where}", "" if ok else hint)


def _fidelity(evidence: Evidence, promises: Promises) -> Gate | None:
    found = evidence.fidelity
    if isinstance(found, FloatFidelity):
        row, least = _Row(promises, "min_float_sqnr_db"), promises.min_float_sqnr_db
        if row.asked is None:
            return None
        equal = found.equal_share is None or found.equal_share >= _EQUAL
        whole = "" if found.equal_share is None else f", {found.equal_share:.2%} of whole numbers equal"
        return row.gate(
            "fidelity",
            (least is None or found.sqnr_db >= least) and equal,
            f"outputs at {found.sqnr_db:.1f} dB of the graph's{whole}",
            f", at least {least:g} wanted" if least is not None else "",
            hint="report this: a lowering is wrong",
        )
    row, most = _Row(promises, "max_lsb"), promises.max_lsb
    if found is None or row.asked is None:
        return None
    worst = found.worst
    detail = f"{found.checked_ops} operators on {found.images} images, at most {found.max_lsb} LSB apart"
    ok = found.probe_agrees and (most is None or found.max_lsb <= most)
    if not found.probe_agrees:
        detail = "the probe file and the shipped file answer differently"
    elif not ok and worst is not None:
        detail += f", {worst.op} at {worst.module} ({worst.mismatch_share:.1%} of {worst.value})"
    hint = "report this: the runtime and the simulation disagree on an operator"
    return row.gate("fidelity", ok, detail, hint=hint)


def _drift(evidence: Evidence, promises: Promises) -> list[Gate]:
    found, gates = evidence.drift, []
    if found is None:
        return []
    culprits = ", ".join(str(layer) for layer in list(evidence.layers)[:3])
    where = f"; the error comes from {culprits}" if culprits else ""
    cures = f"more calibration images, the thorough profile, or {evidence.words.gentler}"
    row = _Row(promises, "max_top1_drop", images=found.n)
    if row.asked is not None and found.metric in _SCORES:
        gates.append(_drop_gate(row, found, promises, where, cures))
    row, least = _Row(promises, "min_agreement", images=found.n), promises.min_agreement
    if row.asked is not None and found.agreement is not None:
        ok = least is None or found.agreement >= 100 * least
        counted = "answers" if found.answers == "answers" else f"images' {found.answers}"
        said = f"{found.agreement:.2f} % of {found.n} {counted} agree"
        limit = f", {100 * least:g} wanted" if least is not None else ""
        gates.append(row.gate("agreement", ok, said, limit, "" if ok else where, cures))
    return gates + _outputs(found, promises, where, cures)


def _outputs(found: Drift, promises: Promises, where: str, cures: str) -> list[Gate]:
    """Every output of a model whose answers nothing else judges; those of whole numbers by what is equal.

    An output that is far off is so on few images already; that all are near needs enough of them.
    """
    if found.task == "classification" or found.metric in _SCORES:
        return []
    gates = []
    reals = [row for row in found.outputs if row.equal_share is None]
    least, share = promises.min_sqnr_db, promises.min_equal
    if reals and promises.judges("min_sqnr_db") is not None:
        worst = min(reals, key=lambda one: one.sqnr_db)
        ok = least is None or worst.sqnr_db >= least
        row = _Row(promises, "min_sqnr_db", images=found.n if ok else None)
        said = f"output {worst.name} at {worst.sqnr_db:.1f} dB of the float model's on {found.n} images"
        said += f", the lowest of {len(reals)}" if len(reals) > 1 else ""
        limit = f", at least {least:g} wanted" if least is not None else ""
        gates.append(row.gate("outputs", ok, said, limit, "" if ok else where, cures))
        if ok and least is not None and worst.sqnr_db < _GOOD_DB:
            said = f"{worst.name} at {worst.sqnr_db:.1f} dB, below {_GOOD_DB:g}: worth a look{where}"
            gates.append(Gate("outputs", True, said, judged=False))
    wholes = [row for row in found.outputs if row.equal_share is not None]
    if wholes and promises.judges("min_equal") is not None:
        worst = min(wholes, key=lambda one: one.equal_share or 0.0)
        ok = share is None or (worst.equal_share or 0.0) >= share
        row = _Row(promises, "min_equal", images=found.n if ok else None)
        said = f"{worst.equal_share:.1%} of the whole numbers of output {worst.name} are equal"
        limit = f", {share:.0%} wanted" if share is not None else ""
        gates.append(row.gate("equal outputs", ok, said, limit, "" if ok else where, cures))
    return gates


def _drop_gate(row: _Row, found: Drift, promises: Promises, where: str, cures: str) -> Gate:
    """Pass on the estimate (or, if asked, on the interval); say when the images cannot decide."""
    assert found.drop is not None and found.ci_low is not None and found.ci_high is not None
    name = _SCORES[found.metric]
    said = (
        f"{name} {found.reference:.2f} -> {found.artifact:.2f} %, drop {found.drop:.2f} points "
        f"[{found.ci_low:.2f}, {found.ci_high:.2f}] on {found.n} images"
    )
    if promises.max_top1_drop is None:
        return row.gate("drift", True, said)
    most = 100 * promises.max_top1_drop
    ok = (found.ci_high if promises.proven_drop else found.drop) <= most
    limit = f", {most:g} allowed"
    if found.ci_low <= most < found.ci_high:
        half, distance = (found.ci_high - found.ci_low) / 2, abs(most - found.drop)
        wanted = math.ceil(found.n * (half / distance) ** 2) if distance > 0.01 else 10 * found.n
        limit += f" (the interval holds both answers; about {min(wanted, 100 * found.n)} images would decide)"
    return row.gate("drift", ok, said, limit, "" if ok else where, cures)


def _delegation(evidence: Evidence, promises: Promises) -> list[Gate]:
    found, words, gates = evidence.delegation, evidence.words, []
    if found is None:
        return []
    elsewhere = words.runtime if words.elsewhere else ""
    left = ", ".join(str(op) for op in found.undelegated_ops[:3])
    more = len(found.undelegated_ops) - 3
    named = f": {left}{f' and {more} more' if more > 0 else ''}" if left else ""
    hint = (
        f"replace the named operators by ones that {words.taker} takes; edgekit inspect lists where each runs"
    )
    row, most = _Row(promises, "max_partitions", elsewhere=elsewhere), promises.max_partitions
    if row.asked is not None:
        ok = found.partitions >= 1 and (most is None or found.partitions <= most)
        said, limit = f"{found.partitions} {words.parts}", f", {most} allowed"
        if not found.partitions:
            said, limit = f"{words.taker} took nothing of {found.operators} operators", ""
        gates.append(row.gate("partitions", ok, said, limit, "" if ok else named, hint))
    row, most = _Row(promises, "max_undelegated", elsewhere=elsewhere), promises.max_undelegated
    if row.asked is not None:
        count = len(found.undelegated_ops)
        said, limit = (
            f"{count} of {found.operators} operators {words.left}",
            f", {most} allowed" if most else "",
        )
        gates.append(row.gate("delegation", most is None or count <= most, said, limit, named, hint))
    return gates


def _audit(evidence: Evidence, promises: Promises) -> list[Gate]:
    found, words, gates = evidence.audit, evidence.words, []
    if found is None:
        return []
    elsewhere = words.runtime if words.elsewhere else ""
    row, most = _Row(promises, "max_transposes", elsewhere=elsewhere), promises.max_transposes
    if row.asked is not None:
        ok = most is None or len(found.transposes) <= most
        where = f": {', '.join(found.transposes[:3])}" if found.transposes else ""
        said, hint = (
            f"{len(found.transposes)} {words.layout}",
            "avoid the reshape or permute in the named modules",
        )
        gates.append(row.gate("layout", ok, said, f", {most} allowed", where, hint))
    row = _Row(promises, "min_int8_share", "min_int8_macs_share", elsewhere=elsewhere)
    if row.asked is not None:
        ok = found.int8_ops_share >= (promises.min_int8_share or 0.0)
        weighted = found.int8_weighted_macs_share
        ok = ok and weighted >= (promises.min_int8_macs_share or 0.0)
        said = f"{found.int8_ops_share:.1%} of operators and {found.int8_macs_share:.1%} of MACs in int8"
        if weighted != found.int8_macs_share:
            said += f", {weighted:.1%} of those on weights"
        islands = list(dict.fromkeys((*found.float_ops, *found.dynamic_ops)))
        where = f", float: {', '.join(islands[:3])}" if islands else ""
        asked = "min_int8_share" if promises.min_int8_share is not None else "min_int8_macs_share"
        gates.append(row.gate("int8", ok, said, "", where, f"replace the named operators, or lower {asked}"))
    row, most = _Row(promises, "max_size_bytes"), promises.max_size_bytes
    if row.asked is not None:
        ok = most is None or found.size_bytes <= most
        limit = f", {most:,} allowed" if most is not None else ""
        largest = next(iter(found.bytes_by_module().items()), None)
        where = f"; most in {largest[0]} ({largest[1]:,})" if largest and not ok else ""
        said = f"{found.size_bytes:,} bytes"
        gates.append(row.gate("size", ok, said, limit, where, "prune, or narrow the named layer"))
    return gates


def latency_gate(evidence: Evidence, promises: Promises) -> Gate | None:
    """Artifact against float; what is not delegated is the first to be blamed."""
    found, most = evidence.latency, promises.max_latency_ratio
    row = _Row(promises, "max_latency_ratio")
    if found is None or row.asked is None:
        return None
    artifact, reference = evidence.latency_names
    if artifact == reference or artifact not in found.files or reference not in found.files:
        return None
    ratio, low, high = found.ratio(artifact, reference)
    said = (
        f"{found.files[artifact].p50_ms:.2f} ms against {found.files[reference].p50_ms:.2f} ms float, "
        f"x{ratio:.2f} [{low:.2f}, {high:.2f}]"
    )
    limit = f", x{most:g} allowed" if most is not None else ""
    measured = f" ({found.profile}, {found.processes} processes, {found.threads} threads)"
    left = evidence.delegation.undelegated_ops if evidence.delegation else ()
    hint = "measure again on an idle machine"
    if left:
        hint = f"{left[0]} is {evidence.words.left}: give it a form that {evidence.words.taker} takes"
    return row.gate("latency", most is None or ratio <= most, said, limit, measured, hint)


def _tensorflow(evidence: Evidence, promises: Promises) -> Gate | None:
    """TensorFlow's interpreter with the kernels it takes by itself; its reference kernels are told beside."""
    found, most = evidence.tensorflow, promises.max_lsb
    row = _Row(promises, "max_lsb")
    if found is None or row.asked is None:
        return None
    own = [row for row in found.outputs if row.kernels == "default"]
    steps = max((row.max_lsb for row in own if row.max_lsb is not None), default=None)
    relative = max(row.max_relative_error for row in own)
    ok = most is None or (steps <= most if steps is not None else relative <= _RELATIVE)
    apart = f"{steps} LSB" if steps is not None else f"{relative:.1e} relative"
    detail = f"{apart} apart with its default kernels; {found}"
    hint = "report this: two interpreters disagree on the same file"
    return row.gate("tensorflow", ok, detail, hint=hint)


def _pairwise(evidence: Evidence, promises: Promises) -> list[Gate]:
    """One gate a pair, named after it."""
    found, least = evidence.pairwise, promises.min_pairwise_agreement
    row, gates = _Row(promises, "min_pairwise_agreement", images=found.n if found else None), []
    for pair in found.pairs if found is not None and row.asked is not None else ():
        assert found is not None
        ok = least is None or pair.agreement >= 100 * least
        said = f"{pair} agree on {pair.agreement:.2f} % of {found.n} images"
        limit = f", {100 * least:g} wanted" if least is not None else ""
        where = f", {pair.sqnr_db:.1f} dB apart"
        at = evidence.divergences.get((pair.first, pair.second))
        if not ok and at is not None:
            where += f"; they part at {at}"
        hint = (
            "answers close to a tie: quantize thoroughly, calibrate on more images, or accept less "
            "([verify] min_pairwise_agreement)"
        )
        gates.append(row.gate(f"agreement {pair.first} {pair.second}", ok, said, limit, where, hint))
    return gates
