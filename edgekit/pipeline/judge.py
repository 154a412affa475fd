"""What was found about each artifact against the recipe's and the target's thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit.pipeline.job import Built, Facts
from edgekit.verify.gates import Evidence, Thresholds, judge

_JUDGED_HERE = ("litert", "onnxruntime", "openvino")  # TensorRT fuses and places operators on a Jetson


def gates_of(facts: Facts, one: Built) -> list[dict[str, Any]]:
    asked, target = facts.recipe.verify, one.target
    limits = replace(
        Thresholds.for_target(target.activations, target.weights, target.format),
        max_lsb=asked.max_lsb,
        max_drop=percent(asked.max_top1_drop),
        min_agreement=percent(asked.min_agreement),
        max_size_bytes=asked.max_size_bytes,
    )
    if target.runtime not in _JUDGED_HERE:
        limits = replace(limits, max_partitions=None, max_undelegated_ops=None, min_int8_macs_share=None)
    if target.activations == "int8":  # what other targets do not promise is not demanded of them
        limits = replace(limits, max_latency_ratio=asked.max_latency_ratio)
    if target.format == "tflite":  # other runtimes reorder tensors on their own, and have no delegates
        limits = replace(limits, max_transposes=asked.max_transposes)
    else:
        limits = replace(limits, max_transposes=None, max_partitions=None)
    if target.format == "tflite" and target.activations == "int8":
        limits = replace(
            limits,
            max_partitions=asked.max_partitions,
            max_undelegated_ops=asked.max_undelegated,
            min_int8_share=asked.min_int8_share,
        )
    found = Evidence(
        fidelity=one.fidelity,
        drift=one.drift,
        audit=one.audit,
        delegation=one.delegation,
        latency=one.latency,
        latency_names=(target.name, target.baseline),
        layers=one.errors,
        tensorflow=one.tensorflow,
    )
    return [{**gate.as_dict(), "target": target.name} for gate in judge(found, limits)]


def shared_gates(facts: Facts) -> list[dict[str, Any]]:
    """Gates over several artifacts."""
    if facts.together is None:
        return []
    limits = Thresholds(min_pairwise_agreement=percent(facts.recipe.verify.min_pairwise_agreement))
    found = Evidence(pairwise=facts.together.agreement, divergences=facts.together.divergences)
    return [{**gate.as_dict(), "target": "all"} for gate in judge(found, limits)]


def percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share
