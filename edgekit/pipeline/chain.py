"""What each variant costs and what it lost, against the original: the rows of report.json's `variants`."""

from __future__ import annotations

from typing import Any

from edgekit.cost.static import count
from edgekit.pipeline.forms import same_layers
from edgekit.pipeline.job import Built, Facts, Form


def rows(facts: Facts) -> list[dict[str, Any]]:
    """From the original to what was built."""
    found = [_row(facts, form) for form in facts.forms]
    for row, form in zip(found[1:], facts.forms[1:], strict=True):
        if (lost := form.changed) is None:
            continue
        found[0] |= {"metric": lost.metric, "figure": lost.reference}
        row |= {
            "metric": lost.metric,
            "figure": lost.artifact,
            "drop": lost.drop,
            "ci_low": lost.ci_low,
            "ci_high": lost.ci_high,
            "sqnr_db": lost.sqnr_db,
        }
    return found


def _row(facts: Facts, form: Form) -> dict[str, Any]:
    counted = count(form.graph)
    row: dict[str, Any] = {
        "step": form.variant.step,
        "name": form.variant.name,
        "params": counted.params,
        "macs": counted.macs,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "targets": [_target(facts, form, one) for one in facts.built],
    }
    if (record := form.variant.record) is not None:
        row["record"] = record
    return row


def _target(facts: Facts, form: Form, one: Built) -> dict[str, Any]:
    """One target's file of a form, or why there is none, timed beside the original's in the same run."""
    name = one.target.name
    row: dict[str, Any] = {"target": name}
    if name in form.predicted:
        row["predicted_ms"] = form.predicted[name]
    if (reason := form.untimed.get(name)) is not None:
        return row | {"reason": reason}
    holder = _holder(facts, form)
    built = one if holder is facts.forms[-1] else holder.timed.get(name)
    if built is None:
        return row
    row["size_bytes"] = built.size_bytes
    if one.latency is None:
        return row
    first = facts.forms[0]
    for key, target in (("", name), ("float_", one.target.baseline)):
        ours, original = _label(facts, holder, target), _label(facts, _holder(facts, first), target)
        if ours not in one.latency.files:
            continue
        row[f"{key}p50_ms"] = one.latency.files[ours].p50_ms
        if form is not first and original in one.latency.files:
            if ours == original:
                ratio, low, high = 1.0, 1.0, 1.0
            else:
                ratio, low, high = one.latency.ratio(ours, original)
            row |= {f"{key}ratio": ratio, f"{key}ratio_low": low, f"{key}ratio_high": high}
    return row


def _holder(facts: Facts, form: Form) -> Form:
    """The form whose files have this one's layers: itself, or a later one that only has other weights."""
    if form.timed or form.untimed:
        return form
    at = facts.forms.index(form)
    return next(later for later in reversed(facts.forms[at:]) if same_layers(form.graph, later.graph))


def _label(facts: Facts, holder: Form, target: str) -> str:
    """What the latency proof calls a file."""
    return target if holder is facts.forms[-1] else f"{holder.variant.step} {target}"
