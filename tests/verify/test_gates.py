"""What passes, what fails, and what a failure says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from tflite_files import small_net

from edgekit.runtimes.audit import audit
from edgekit.runtimes.delegation import delegation
from edgekit.verify.drift import drift
from edgekit.verify.fidelity import Fidelity, FloatFidelity, OpFidelity
from edgekit.verify.gates import Evidence, Thresholds, judge
from edgekit.verify.latency import FileLatency, Latency
from edgekit.verify.layers import LayerError

LAYER = LayerError("conv2d", "features.2.conv", "features.2", 12.0, 10.0, 14.0, 0.41)


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
    gates = judge(evidence, Thresholds(min_agreement=99.0, max_size_bytes=100_000))
    assert [gate.name for gate in gates] == [
        "fidelity",
        "drift",
        "agreement",
        "partitions",
        "delegation",
        "layout",
        "int8",
        "size",
        "latency",
    ]
    assert all(gate.ok and not gate.hint for gate in gates)
    json.dumps([gate.as_dict() for gate in gates])


def test_no_evidence_no_gate():
    assert judge(Evidence()) == []
    assert judge(Evidence(fidelity=_fidelity(0)), Thresholds(max_lsb=None)) == []


def test_fidelity_names_the_operator():
    (gate,) = judge(Evidence(fidelity=_fidelity(3)))
    assert not gate.ok and "mean at avgpool (25.0% of pool)" in gate.detail and gate.hint
    (gate,) = judge(Evidence(fidelity=_fidelity(0, agrees=False)))
    assert not gate.ok and "answer differently" in gate.detail


def test_float_fidelity_is_judged_in_db():
    assert judge(Evidence(fidelity=FloatFidelity(90.0, 1e-6, 2)))[0].ok
    assert not judge(Evidence(fidelity=FloatFidelity(12.0, 0.1, 2)))[0].ok


def test_a_drop_names_the_layers_that_cause_it():
    (gate,) = judge(Evidence(drift=_drift(60), layers=[LAYER]))
    assert not gate.ok and "drop 6.00 points" in gate.detail
    assert "conv2d at features.2.conv (41% of the output noise)" in gate.detail and "calibration" in gate.hint


def test_a_drop_the_images_cannot_decide_says_how_many_would():
    (gate,) = judge(Evidence(drift=_drift(8, n=1000)))
    assert gate.ok and "about" in gate.detail and "images would decide" in gate.detail
    (strict,) = judge(Evidence(drift=_drift(8, n=1000)), Thresholds(proven_drop=True))
    assert not strict.ok
    (clear,) = judge(Evidence(drift=_drift(1, n=1000)), Thresholds(proven_drop=True))
    assert clear.ok and "would decide" not in clear.detail


def test_undelegated_operators_are_named():
    evidence = Evidence(delegation=delegation(small_net("builtin")), audit=audit(small_net("builtin")))
    gates = _named(judge(evidence))
    assert not gates["partitions"].ok and "2 delegate partitions" in gates["partitions"].detail
    assert not gates["delegation"].ok and "HARD_SWISH at features.1" in gates["delegation"].detail
    assert gates["int8"].ok and gates["layout"].ok


def test_a_delegate_that_was_not_applied_fails():
    none = replace(delegation(small_net("table")), partitions=0)
    gate = _named(judge(Evidence(delegation=none)))["partitions"]
    assert not gate.ok and "took nothing" in gate.detail


def test_slower_than_float_points_at_the_operator_outside_the_delegate():
    evidence = Evidence(latency=_latency(3.0, 2.0), delegation=delegation(small_net("builtin")))
    gate = _named(judge(evidence))["latency"]
    assert not gate.ok and "x1.50" in gate.detail and "HARD_SWISH at features.1" in gate.hint


def test_size_names_the_largest_module():
    gate = _named(judge(Evidence(audit=audit(small_net())), Thresholds(max_size_bytes=100)))["size"]
    assert not gate.ok and "most in features.0" in gate.detail


def test_only_int8_promises_speed():
    assert Thresholds.for_target("int8", "int8").max_latency_ratio == 1.0
    for activations, weights in (("float32", "float32"), ("float32", "int8"), ("int16", "int8")):
        assert Thresholds.for_target(activations, weights).min_int8_share is None
