"""What the file really holds and what runs where, as far as its runtime executes it here."""

from __future__ import annotations

from typing import Any

from edgekit.pipeline.bundle import without
from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.proofs.proof import Asked, Proof, each
from edgekit.runtimes.audit import audit, delegation
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import Promises
from edgekit.verify.gates import Evidence, Gate, judge


def prove(asked: Asked, one: Built) -> None:
    if not RUNTIMES[one.target.runtime].audits:
        return
    with asked.session.step(f"audit {one.target.name}"):
        one.audit = audit(one.file, one.modules)
        one.delegation = delegation(one.file, one.modules)


def gates(one: Built, promises: Promises) -> list[Gate]:
    return judge(Evidence(target=one.target, audit=one.audit, delegation=one.delegation), promises)


def section(_facts: Facts, one: Built) -> dict[str, Any]:
    return {"audit": _audit(one), "layers": _layers(one)}


def _audit(one: Built) -> dict[str, Any]:
    if one.audit is None or one.delegation is None:  # nothing here executes it
        dtypes = {"input_dtype": one.target.activations, "output_dtype": one.target.activations}
        nothing: dict[str, Any] = {"int8_ops_share": 0.0, "float_ops": len(one.nodes), "transposes": 0}
        return nothing | {"partitions": None, "undelegated_ops": None} | dtypes
    content = without(one.audit.as_dict(), "ops")
    if one.target.words.delegates:
        content["partitions"] = one.delegation.partitions
    else:
        content |= {"partitions": None, "executed": {"kinds": one.audit.kinds}}
    return content | {"undelegated_ops": [str(op) for op in one.delegation.undelegated_ops]}


def _layers(one: Built) -> list[dict[str, Any]]:
    """In order: what each layer costs, where it runs, how much noise it adds.

    A file that is executed as it is written has operators for the prepared graph's nodes; other runtimes
    execute what they fused.
    """
    if one.audit is None or one.delegation is None:
        return []
    if not RUNTIMES[one.target.runtime].as_written:
        return _executed(one)
    outside = {op.index for op in one.delegation.undelegated_ops}
    errors = {error.value: error for error in one.errors}
    rows = []
    for i, node in enumerate(one.prepared.nodes):
        ops = [op for op in one.audit.ops if one.nodes[op.index] == i]
        if not ops:
            continue
        row: dict[str, Any] = {
            "name": node.output.name,
            "module": node.source,
            "op": "depthwise_conv2d" if any(op.op == "DEPTHWISE_CONV_2D" for op in ops) else node.op,
            "macs": sum(op.macs for op in ops),
            "bytes": sum(op.weight_bytes for op in ops),
            "where": "cpu" if any(op.index in outside for op in ops) else "xnnpack",
        }
        if row["where"] == "xnnpack" and any(op.kind == "table" for op in ops):
            row["where"] = "table"
        if (error := errors.get(node.output.name)) is not None:
            row["sqnr_db"], row["introduced_error_share"] = error.accumulated_db, error.output_share
        rows.append(row)
    return rows


def _executed(one: Built) -> list[dict[str, Any]]:
    assert one.audit is not None
    errors: dict[str, Any] = {}
    for error in one.errors:  # the most costly of a module first
        errors.setdefault(error.module, error)
    rows = []
    for op in one.audit.ops:
        if op.kind in ("convert", "other"):
            continue
        row: dict[str, Any] = {
            "name": op.module,
            "module": op.module,
            "op": op.op,
            "macs": op.macs,
            "bytes": op.weight_bytes,
            "where": "int8" if op.kind == "int8" else "float",
        }
        if (error := errors.pop(op.module, None)) is not None:
            row["sqnr_db"], row["introduced_error_share"] = error.accumulated_db, error.output_share
        rows.append(row)
    return rows


AUDIT = Proof("audit", each(prove), gates, section)
