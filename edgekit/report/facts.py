"""What a report says, before it is typeset: verdict, headline figures, counts.

The HTML page, the Markdown page, the terminal table and the model card all take their words from here, so
that they cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report import formats, units
from edgekit.report.schema import EVERY

METRICS = {"top1": "top-1", "top5": "top-5", "miou": "mean IoU"}


@dataclass(frozen=True)
class Bar:
    """One bar of a small comparison: who, how much in words, and the share of the longest."""

    name: str
    text: str
    share: float
    reference: bool = False


@dataclass(frozen=True)
class Figure:
    """A headline number: value and unit, what it is compared with, and the comparison in words."""

    label: str
    value: str
    unit: str
    comparison: str
    detail: str = ""
    good: bool | None = None
    bars: tuple[Bar, ...] = ()

    @property
    def text(self) -> str:
        return f"{self.value} {self.unit}".strip()


@dataclass(frozen=True)
class Verdict:
    """`ok` is None when nothing was proven: no gate ran, untrained weights, or too few images."""

    ok: bool | None
    word: str
    sentence: str


def untrained(report: dict[str, Any]) -> bool:
    """Whether the figures stand on weights that nobody trained."""
    weights = report.get("provenance", {}).get("weights", {})
    return bool(weights.get("untrained")) or report["weights"].strip().lower() in ("untrained", "random")


def failed_gates(report: dict[str, Any], target: str | None = None) -> list[dict[str, Any]]:
    return [g for g in gates_of(report, target) if not g["ok"]]


def gates_of(report: dict[str, Any], target: str | None = None) -> list[dict[str, Any]]:
    """All gates, or those of one target (a gate over several artifacts belongs to every one)."""
    return [g for g in _rows(report, target) if judged(g)]


def remarks_of(report: dict[str, Any], target: str | None = None) -> list[dict[str, Any]]:
    """What gates found that were switched off, or that only another machine could judge."""
    return [g for g in _rows(report, target) if not judged(g)]


def judged(gate: dict[str, Any]) -> bool:
    """Whether a row is a gate; a remark is shown and decides nothing."""
    return gate.get("judged", True)


def _rows(report: dict[str, Any], target: str | None) -> list[dict[str, Any]]:
    return [g for g in report["gates"] if target is None or g.get("target") in (*EVERY, target)]


def verdict(report: dict[str, Any], target: str | None = None) -> Verdict:
    gates, failed = gates_of(report, target), failed_gates(report, target)
    if failed:
        names = ", ".join(dict.fromkeys(g["name"] for g in failed))
        count = f"{len(failed)} of {units.plural(len(gates), 'gate')}"
        return Verdict(False, "Rejected", f"{count} failed: {names}.")
    if not gates:
        return Verdict(None, "Unproven", "No gate was run.")
    passed = "The gate passed." if len(gates) == 1 else f"All {len(gates)} gates passed."
    if remarks := len(remarks_of(report, target)):
        passed += f" {remarks} more {'was' if remarks == 1 else 'were'} found and not judged."
    if untrained(report):
        said = f"{passed} Nothing here says that the answers are right."
        return Verdict(None, "Passed, but untrained", said)
    if not _judged_images(report):
        said = f"{passed} No evaluation images were given: nothing here says how good the answers are."
        return Verdict(None, "Passed, but not evaluated", said)
    few = [d for d in _drifts(report, target) if d.get("n", 0) < (d.get("min_images") or 0)]
    if few:
        count, least = units.plural(few[0]["n"], "evaluation image"), few[0]["min_images"]
        said = f"{passed} {count} cannot tell how good the answers are: at least {least}."
        return Verdict(None, "Passed, but on too few images", said)
    return Verdict(True, "Ready to ship", passed)


def _judged_images(report: dict[str, Any]) -> bool:
    """Whether there were evaluation images; where a report does not say so, its drift does."""
    data = report.get("provenance", {}).get("data")
    return data is None or "n_evaluation" in data or any(_drifts(report, None))


def _drifts(report: dict[str, Any], target: str | None) -> list[dict[str, Any]]:
    artifacts = report["artifacts"].items()
    found = [a.get("drift") for name, a in artifacts if target in (None, name)]
    return [drift for drift in found if drift]


def tally(value: int | Sequence[Any] | None) -> int | None:
    """A count that the contract allows to be given as the list itself."""
    return value if value is None or isinstance(value, int) else len(value)


def names(value: int | Sequence[Any] | None) -> list[str]:
    """The names in a count-or-list: 'SOFTMAX at classifier.2'."""
    if value is None or isinstance(value, int):
        return []
    out = []
    for item in value:
        if isinstance(item, dict):
            op, place = item.get("op") or item.get("name"), item.get("module") or item.get("name")
            out.append(f"{op} at {place}" if op and place and op != place else str(op or place or item))
        else:
            out.append(str(item))
    return out


def place(layer: dict[str, Any]) -> str:
    """What a layer is called: its module's path, else the name of its value."""
    return layer.get("module") or layer["name"]


def times(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    """Measured milliseconds as rows of a map: neighbouring operators that were timed together are one row."""
    rows = (artifact.get("times") or {}).get("rows") or []
    found = []
    for row in rows:
        modules = row["modules"]
        name = modules[0] if len(modules) == 1 else f"{modules[0]} to {modules[-1]}" if modules else ""
        found.append({"name": name, "module": name, "op": _main_op(row["ops"]), "ms": row["ms"]})
    found = found or artifact.get("layers") or []
    return found if sum(row.get("ms") or 0 for row in found) > 0 else []


def _main_op(ops: Sequence[str]) -> str:
    """What operators timed together are coloured as: a convolution among them takes most of their time."""
    kinds = [op.lower() for op in ops]
    known = ("conv_2d", "fully_connected", "depthwise_conv_2d")
    return next((kind for kind in known if kind in kinds), kinds[0] if kinds else "")


def short(report: dict[str, Any], target: str) -> str:
    """'int8' for 'tflite-int8' beside 'float'; the whole name where several artifacts would be 'int8'."""
    alike = [name for name in report["artifacts"] if formats.of(name).variant == formats.of(target).variant]
    return formats.of(target).variant if len(alike) == 1 and "-" in target else target


def float_name(report: dict[str, Any], target: str) -> str:
    """What the float baseline of a target's latency is called, as short as the target itself."""
    named = (report["artifacts"][target].get("latency") or {}).get("float_target")
    if not named:
        return "float32"
    alike = short(report, target) != target and formats.of(named).family == formats.of(target).family
    return formats.of(named).variant if alike else named


def is_baseline(report: dict[str, Any], target: str) -> bool:
    """Whether the target's latency is that of the float baseline itself."""
    return (report["artifacts"][target].get("latency") or {}).get("float_target") == target


def float_size(report: dict[str, Any], target: str) -> tuple[float, str]:
    """Bytes of the float model, and where the figure is from: a file of the same format, or the weights."""
    artifact = report["artifacts"][target]
    if artifact.get("float_size_bytes"):
        named = (artifact.get("latency") or {}).get("float_target") or "float32"
        return artifact["float_size_bytes"], f"{formats.of(named).variant} file"
    baseline = formats.of(target).baseline
    if twin := report["artifacts"].get(baseline):
        return twin["size_bytes"], f"{formats.of(baseline).variant} file"
    return report["cost"]["params"] * 4, "float32 weights"


def size_figure(report: dict[str, Any], target: str) -> Figure:
    ours = report["artifacts"][target]["size_bytes"]
    reference, origin = float_size(report, target)
    value, unit = units.size(ours)
    widest = max(ours, reference, 1)
    bars = (
        Bar(short(report, target), f"{value} {unit}", ours / widest),
        Bar(origin, units.said(units.size(reference)), reference / widest, reference=True),
    )
    than = "float16" if origin.startswith("float16") else "float"
    return Figure("Size", value, unit, _ratio(reference, ours, "smaller", "larger", than), bars=bars)


def labelled(drift: dict[str, Any] | None) -> bool:
    """Whether there is an accuracy: labels were known, so it is more than agreement with float."""
    return drift is not None and drift["artifact"] is not None and drift["metric"] != "agreement"


def metric(drift: dict[str, Any]) -> str:
    return METRICS.get(drift["metric"], drift["metric"])


def interval(drift: dict[str, Any]) -> str:
    """'−0.15 to 0.75' in points, or an empty string."""
    if not labelled(drift) or drift["ci_low"] is None or drift["ci_high"] is None:
        return ""
    return f"{units.points(drift['ci_low'])} to {units.points(drift['ci_high'])}"


def change(drift: dict[str, Any]) -> str:
    """'0.30 points lower': the drop in words, so that no sign has to be explained."""
    drop = drift["drop"]
    if drop is None:
        return ""
    if abs(drop) < 0.005:
        return "no change"
    amount = units.points(abs(drop))
    return f"{amount} {'point' if amount == '1.00' else 'points'} {'lower' if drop > 0 else 'higher'}"


def accuracy_figure(report: dict[str, Any], target: str) -> Figure | None:
    drift = report["artifacts"][target].get("drift")
    if not drift:
        return None
    pictures = f"{drift['n']:,} images"
    if not labelled(drift):
        if drift["agreement"] is None:
            text = units.decibels(drift["sqnr_db"])
            value, _, unit = text.partition(" ")
            return Figure("SQNR", value, unit, "no labels: signal to noise of the outputs", pictures)
        value, unit = units.percent(drift["agreement"])
        same = "same answer" if drift.get("answers", "answers") == "answers" else f"same {drift['answers']}"
        return Figure("Agreement", value, unit, f"{same} as float (no labels)", pictures)
    value, unit = units.percent(drift["artifact"])
    spread = interval(drift)
    detail = f"95 % interval of the drop {spread} points" if spread else ""
    against = ""
    if drift["reference"] is not None:
        against = f"float {units.said(units.percent(drift['reference']))}, {change(drift)}".rstrip(", ")
    limit = drift.get("max_drop_points")
    good = None if drift["drop"] is None or limit is None else drift["drop"] <= limit
    detail = f"{detail}; {pictures}".lstrip("; ")
    return Figure(f"Accuracy, {metric(drift)}", value, unit, against, detail, good)


def latency_figure(report: dict[str, Any], target: str) -> Figure | None:
    latency = report["artifacts"][target].get("latency")
    if not latency:
        return None
    value, unit = units.milliseconds(latency["p50_ms"])
    reference, ours = latency["float_p50_ms"], short(report, target)
    bars: tuple[Bar, ...] = (Bar(ours, f"{value} {unit}", 1.0),)
    comparison, good = "", None
    if is_baseline(report, target):
        comparison = "the float baseline itself"
    elif reference:
        widest, than = max(reference, latency["p50_ms"]), float_name(report, target)
        word = than if than == latency.get("float_target") else "float"
        comparison = _ratio(reference, latency["p50_ms"], "faster", "slower", word)
        good = latency["p50_ms"] <= reference
        bars = (
            Bar(ours, f"{value} {unit}", latency["p50_ms"] / widest),
            Bar(than, units.said(units.milliseconds(reference)), reference / widest, reference=True),
        )
    threads = units.plural(latency["threads"], "thread")
    runtime = formats.runtime_name(latency["runtime"])
    return Figure("Latency, median", value, unit, comparison, f"{runtime}, {threads}", good, bars)


def percentiles(latency: dict[str, Any], of: str = "") -> str:
    """'3.06 / 3.14 / 3.31 ms' for p50, p90 and p99; `of` is '' or 'float_'."""
    values = [latency.get(f"{of}{p}_ms") for p in ("p50", "p90", "p99")]
    if values[0] is None:
        return units.NONE
    unit, factor = units.time_unit(values[0])
    texts = [units.NONE if v is None else units.digits(v * factor) for v in values]
    return f"{' / '.join(texts)} {unit}"


def flat(samples: Sequence[Any] | None) -> list[float]:
    """All samples of a list that may hold one list a process."""
    out: list[float] = []
    for item in samples or ():
        out.extend(item) if isinstance(item, list) else out.append(item)
    return out


def drift_sentence(drift: dict[str, Any]) -> str:
    """Accuracy, drop, interval, test and agreement in one sentence."""
    parts = []
    if labelled(drift) and drift["reference"] is not None:
        of = f"{metric(drift)} {units.said(units.percent(drift['artifact']))}"
        parts.append(f"{of} against {units.said(units.percent(drift['reference']))} in float")
    if labelled(drift) and drift["drop"] is not None:
        spread = f" (95 % interval {interval(drift)})" if interval(drift) else ""
        parts.append(f"drop {units.points(drift['drop'])} points{spread}")
    if drift["p_value"] is not None:
        parts.append(f"McNemar p {p_value(drift['p_value'])}")
    if drift["agreement"] is not None:
        counted = drift.get("answers", "answers")
        parts.append(f"{units.said(units.percent(drift['agreement']))} of {counted} agree")
    if drift["sqnr_db"] is not None:
        which = "lowest " if len(drift.get("outputs") or ()) > 1 else ""
        parts.append(f"{which}output SQNR {units.decibels(drift['sqnr_db'])}")
    return f"{', '.join(parts)}; {drift['n']:,} images, {tally(drift['flipped']):,} flipped"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def latency_sentence(latency: dict[str, Any]) -> str:
    """How latency was measured."""
    where = f"{formats.runtime_name(latency['runtime'])}, {units.plural(latency['threads'], 'thread')}"
    processes = units.plural(latency["processes"], "fresh process", "fresh processes")
    return f"{latency['n']:,} runs in {processes}, {where}"


def _ratio(reference: float, ours: float, better: str, worse: str, than: str) -> str:
    """'3.9× smaller than float', '2 % slower than float'."""
    if not ours or not reference:
        return ""
    word = better if ours <= reference else worse
    ratio = max(reference, ours) / min(reference, ours)
    if ratio < 1.005:
        return f"the same as {than}"
    if ratio < 1.15:
        return f"{100 * abs(reference - ours) / reference:.0f} % {word} than {than}"
    return f"{units.digits(ratio, 2)}{units.TIMES} {word} than {than}"


def about_data(report: dict[str, Any]) -> list[str]:
    """What a reader must know of the pictures: fewer than asked for, left out, or on their side."""
    data = report.get("provenance", {}).get("data", {})
    lines = []
    for split in ("calibration", "evaluation"):
        n, asked = data.get(f"n_{split}"), data.get(f"asked_{split}")
        if n is not None and asked is not None and n < asked:
            why = data.get("evaluation_limit") if split == "evaluation" else None
            lines.append(
                f"{split}: {n:,} of the {units.plural(asked, 'image')} asked for, {why or 'all there are'}"
            )
    lines += [f"left out: {line}" for line in data.get("skipped") or ()]
    if data.get("turned") and data.get("orientation") == "ignored":
        lines.append(
            f"{units.plural(data['turned'], 'picture')} with an EXIF orientation, which is ignored as "
            "torchvision does; --exif apply turns them"
        )
    return lines


def trained(artifact: dict[str, Any]) -> list[str]:
    """What quantization-aware training did to an artifact, in sentences."""
    return list(((artifact.get("quantize") or {}).get("qat") or {}).get("notes") or [])
