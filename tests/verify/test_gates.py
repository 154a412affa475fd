"""What passes, what fails, and what a failure says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tflite_files import small_net

from edgekit.device.host import FileLatency, Latency
from edgekit.runtimes.audit import audit, delegation
from edgekit.targets import TARGETS, Promises, get_target
from edgekit.targets.promises import THRESHOLDS
from edgekit.tasks.classification import compare_logits as drift
from edgekit.verify.fidelity import Fidelity, FloatFidelity, OpFidelity
from edgekit.verify.gates import Evidence, judge
from edgekit.verify.layers import LayerError

LAYER = LayerError("conv2d", "features.2.conv", "features.2", 12.0, 10.0, 14.0, 0.41)

STRICT = Promises(
    max_lsb=1,
    min_float_sqnr_db=30.0,
    max_top1_drop=0.01,
    min_pairwise_agreement=0.99,
    max_partitions=1,
    max_undelegated=0,
    max_transposes=0,
    min_int8_share=1.0,
    max_latency_ratio=1.0,
)
EVERY_GATE = (
    "fidelity",
    "drift",
    "agreement",
    "partitions",
    "delegation",
    "layout",
    "int8",
    "size",
    "latency",
)


def _named(gates):
    return {gate.name: gate for gate in gates}


def _fidelity(lsb, agrees=True):
    row = OpFidelity("mean", "avgpool", "pool", lsb, 0.25, True)
    return Fidelity(lsb, 0.1, {}, (row,), agrees, 3, 7, ())


def _drift(lost, gained=0, n=1000):
    labels = np.zeros(n, int)
    reference, artifact = np.tile([5.0, 0.0], (n, 1)), np.tile([5.0, 0.0], (n, 1))
    artifact[:lost] = [0.0, 5.0]
    reference[lost : lost + gained] = [0.0, 5.0]
    return drift(reference, artifact, labels)


def _latency(int8_ms, float_ms):
    def one(ms):
        return FileLatency(ms, ms, ms, (ms, ms), (ms, ms), (ms, ms), False, 20, 1.0, 1.0, 1)

    samples = {
        name: [np.full(10, ms * 1e6, np.int64)] * 2 for name, ms in (("int8", int8_ms), ("float", float_ms))
    }
    files = {"int8": one(int8_ms), "float": one(float_ms)}
    return Latency(files, samples, "quick", 2, 1, "ai-edge-litert 2", {})


def test_a_sound_artifact_passes_everything():
    evidence = Evidence(
        fidelity=_fidelity(0),
        drift=_drift(2),
        audit=audit(small_net("table")),
        delegation=delegation(small_net("table")),
        latency=_latency(1.0, 2.0),
    )
    gates = judge(evidence, replace(STRICT, min_agreement=0.99, max_size_bytes=100_000))
    assert tuple(gate.name for gate in gates) == EVERY_GATE
    assert all(gate.ok and not gate.hint for gate in gates)
    json.dumps([gate.as_dict() for gate in gates])


def test_no_evidence_no_gate():
    assert judge(Evidence(), STRICT) == []
    assert judge(Evidence(fidelity=_fidelity(0)), Promises()) == []


def test_fidelity_names_the_operator():
    (gate,) = judge(Evidence(fidelity=_fidelity(3)), STRICT)
    assert not gate.ok and "mean at avgpool (25.0% of pool)" in gate.detail and gate.hint
    (gate,) = judge(Evidence(fidelity=_fidelity(0, agrees=False)), STRICT)
    assert not gate.ok and "answer differently" in gate.detail


def test_float_fidelity_is_judged_in_db():
    assert judge(Evidence(fidelity=FloatFidelity(90.0, 1e-6, 2)), STRICT)[0].ok
    assert not judge(Evidence(fidelity=FloatFidelity(12.0, 0.1, 2)), STRICT)[0].ok


def test_a_drop_names_the_layers_that_cause_it():
    (gate,) = judge(Evidence(drift=_drift(60), layers=[LAYER]), STRICT)
    assert not gate.ok and "drop 6.00 points" in gate.detail
    assert "conv2d at features.2.conv (41% of the output noise)" in gate.detail and "calibration" in gate.hint


def test_a_drop_the_images_cannot_decide_says_how_many_would():
    (gate,) = judge(Evidence(drift=_drift(8, n=1000)), STRICT)
    assert gate.ok and "about" in gate.detail and "images would decide" in gate.detail
    (strict,) = judge(Evidence(drift=_drift(8, n=1000)), replace(STRICT, proven_drop=True))
    assert not strict.ok
    (clear,) = judge(Evidence(drift=_drift(1, n=1000)), replace(STRICT, proven_drop=True))
    assert clear.ok and "would decide" not in clear.detail


def test_undelegated_operators_are_named():
    evidence = Evidence(delegation=delegation(small_net("builtin")), audit=audit(small_net("builtin")))
    gates = _named(judge(evidence, STRICT))
    assert not gates["partitions"].ok and "2 delegate partitions" in gates["partitions"].detail
    assert not gates["delegation"].ok and "HARD_SWISH at features.1" in gates["delegation"].detail
    assert gates["int8"].ok and gates["layout"].ok


def test_a_delegate_that_was_not_applied_fails():
    none = replace(delegation(small_net("table")), partitions=0)
    gate = _named(judge(Evidence(delegation=none), STRICT))["partitions"]
    assert not gate.ok and "took nothing" in gate.detail


def test_slower_than_float_points_at_the_operator_outside_the_delegate():
    evidence = Evidence(latency=_latency(3.0, 2.0), delegation=delegation(small_net("builtin")))
    gate = _named(judge(evidence, STRICT))["latency"]
    assert not gate.ok and "x1.50" in gate.detail and "HARD_SWISH at features.1" in gate.hint


def test_size_names_the_largest_module():
    gate = _named(judge(Evidence(audit=audit(small_net())), Promises(max_size_bytes=100)))["size"]
    assert not gate.ok and "most in features.0" in gate.detail


def test_only_int8_promises_speed():
    for target in TARGETS.values():
        assert (target.promises.max_latency_ratio is not None) == (target.activations == "int8"), target.name
        assert target.promises.min_int8_share is None


# What was found for a target of each kind, and the gates that its own promises make of it.
PROMISED = {
    "tflite-int8": {"fidelity", "drift", "latency"},
    "onnx-int8": {"fidelity", "drift", "latency", "delegation", "int8"},
    "openvino-int8": {"fidelity", "drift", "latency", "delegation", "int8"},
    "tensorrt-int8": {"fidelity", "drift", "latency"},
    "tflite-float32": {"fidelity", "drift"},
    "onnx-float32": {"fidelity", "drift"},
    "openvino-float16": {"fidelity", "drift"},
    "tflite-int16x8": {"fidelity", "drift"},
}


def _evidence(target):
    return Evidence(
        target=target,
        fidelity=_fidelity(0) if target.quantized else FloatFidelity(90.0, 1e-6, 2),
        drift=_drift(2),
        audit=audit(small_net("builtin")),
        delegation=delegation(small_net("builtin")),
        latency=_latency(1.0, 2.0),
    )


@pytest.mark.parametrize("name", PROMISED)
def test_a_target_is_judged_by_its_own_promises(name):
    target = get_target(name)
    gates = judge(_evidence(target), target.promises)
    assert {gate.name for gate in gates} == PROMISED[name] and all(gate.judged for gate in gates)


@pytest.mark.parametrize("name", PROMISED)
def test_off_is_a_remark_that_is_shown_for_every_target(name):
    target = get_target(name)
    promises = target.promises.overridden(dict.fromkeys(THRESHOLDS, "off"))
    gates = judge(_evidence(target), promises)
    assert {gate.name for gate in gates} == set(EVERY_GATE)
    assert all(gate.ok and not gate.judged and not gate.hint for gate in gates)
    assert all("not judged" in gate.detail and "None" not in gate.detail for gate in gates)


@pytest.mark.parametrize("name", PROMISED)
def test_a_recipe_may_ask_any_target_for_more(name):
    target = get_target(name)
    gates = _named(judge(_evidence(target), target.promises.overridden({"max_undelegated": 0})))
    found = gates["delegation"]
    assert target.words.left in found.detail
    if target.words.elsewhere:  # another runtime ran the file here: its placement is no proof
        assert found.ok and not found.judged and "TensorRT decides" in found.detail
    else:
        assert not found.ok and target.words.taker in found.hint
        allowed = target.promises.overridden({"max_undelegated": 9})
        assert _named(judge(_evidence(target), allowed))["delegation"].ok


def test_a_files_own_latency_is_no_gate():
    evidence = replace(_evidence(get_target("tflite-float32")), latency_names=("float", "float"))
    assert "latency" not in _named(judge(evidence, Promises(max_latency_ratio=0.9)))
