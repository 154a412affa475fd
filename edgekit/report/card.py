"""MODEL_CARD.md: what a model file is, what it is for, what it is not. Report and manifest in, Markdown out.

A card says no more than was measured: where a figure is missing it says so, and what follows from the data
or the weights is spelled out under limitations.
"""

from __future__ import annotations

from typing import Any

from edgekit.report import facts, formats, outputs, units
from edgekit.report.markdown import code, table, text


def model_card(report: dict[str, Any], target: str, manifest: dict[str, Any]) -> str:
    """The card of one artifact.

    Args:
        report: as in report.json; `target` is one of its artifacts.
        manifest: the bundle's manifest.json.
    """
    artifact = report["artifacts"][target]
    verdict = facts.verdict(report, target)
    lines = [f"# {text(report['model'])}, {text(target)}", ""]
    if facts.untrained(report):
        lines += ["> [!WARNING]", "> **UNTRAINED weights.** This file answers at random. Do not ship it.", ""]
    if verdict.ok is False:
        lines += ["> [!CAUTION]", f"> **Rejected.** {text(verdict.sentence)} Do not ship it.", ""]
    version = text(manifest["edgekit_version"])
    lines += [
        f"An image model for {formats.words(target).runtime}, compiled by edgekit {version}: "
        f"{_files(artifact, manifest)}. {text(verdict.word)}. {text(verdict.sentence)}",
        "",
        "## Intended use",
        "",
        _use(report),
        "",
        "## Input and output",
        "",
        *_tensors(target, manifest),
        "",
        *_load(artifact, target, manifest),
        "",
        "What to do with a picture:",
        "",
        *(f"{i}. {text(s['words'])}" for i, s in enumerate(manifest["preprocessing"]["steps"], start=1)),
        "",
        _labels(manifest),
        "",
        "## Measured",
        "",
        *_measured(report, target),
        "",
        "## Weights and data",
        "",
        *_origin(report, manifest),
        "",
        "## Limitations",
        "",
        *(f"- {line}" for line in _limitations(report, target)),
        "",
        "## Check it",
        "",
        _golden(manifest),
    ]
    return "\n".join(lines).strip() + "\n"


def _use(report: dict[str, Any]) -> str:
    if facts.untrained(report):
        return "Timing and integration tests. The answers mean nothing."
    if _embedded(report):
        return (
            "Trying out the tool chain, integration tests and comparisons of speed and of quantization. The "
            "classes are generated figures: for photographs train or load weights made for them."
        )
    if (report.get("task") or {}).get("name") in ("tensors", "segmentation"):
        return (
            "Inference on devices, on inputs like those it was evaluated on. Whether it suits a use with "
            "consequences for people has not been examined."
        )
    return (
        "Image classification on devices, on pictures like those it was evaluated on. Whether it suits a use "
        "with consequences for people has not been examined."
    )


def _embedded(report: dict[str, Any]) -> bool:
    return report["data"].startswith("embedded")


def _files(artifact: dict[str, Any], manifest: dict[str, Any]) -> str:
    """'`model.xml` with `model.bin`, together 4.39 MB'."""
    size = units.said(units.size(artifact["size_bytes"]))
    beside = list(artifact.get("files") or {})[1:]
    if not beside:
        return f"{code(manifest['file'])}, {size}"
    return f"{code(manifest['file'])} with {', '.join(map(code, beside))}, together {size}"


def _load(artifact: dict[str, Any], target: str, manifest: dict[str, Any]) -> list[str]:
    """How to load the file, and what the runtime was told when it was measured."""
    language, lines = formats.load(
        target, manifest["file"], manifest["signature"], manifest["inputs"][0]["name"]
    )
    given = (artifact.get("latency") or {}).get("settings") or {}
    told = ", ".join(f"{code(k)} {code(formats.setting(v))}" for k, v in given.items())
    said = [] if not told else ["", f"Measured with {told}."]
    return [f"Load it with {formats.words(target).runtime}:", "", f"```{language}", *lines, "```", *said]


def _tensors(target: str, manifest: dict[str, Any]) -> list[str]:
    rows = [
        [
            kind,
            code(t["name"]),
            code(t["dtype"]),
            code(" x ".join(map(str, t["shape"]))),
            units.NONE if t["scale"] is None else code(repr(t["scale"])),
            units.NONE if t["scale"] is None else str(t["zero_point"]),
        ]
        for kind, tensors in (("input", manifest["inputs"]), ("output", manifest["outputs"]))
        for t in tensors
    ]
    signature = [f"Signature {code(manifest['signature'])}.", ""] if formats.words(target).signatures else []
    return [*signature, *table(["", "name", "dtype", "shape", "scale", "zero point"], rows)]


def _scores(manifest: dict[str, Any]) -> int | None:
    """Which output holds class scores; None where none does."""
    return (manifest.get("task") or {"scores": 0})["scores"]


def _labels(manifest: dict[str, Any]) -> str:
    labels = manifest["labels"]
    if _scores(manifest) is None and labels is None:
        return f"The task is {text(manifest['task']['name'])}: outputs are numbers, named in the table above."
    if labels is None:
        return "No class names came with the weights: output i is class i."
    return (
        f"{units.plural(labels['count'], 'class', 'classes')}; line i of {code(labels['file'])} is output i."
    )


def _measured(report: dict[str, Any], target: str) -> list[str]:
    artifact = report["artifacts"][target]
    drift, latency = artifact.get("drift"), artifact.get("latency")
    lines = [f"- accuracy: {text(facts.drift_sentence(drift))}" if drift else "- accuracy: not measured"]
    for name, shape, *figures in outputs.rows(drift):
        lines.append(f"- output {code(name)} ({text(shape)}): {text(figures[0])} against the float model's")
    lines += [f"- {text(name)}: {text(said)}" for name, said in outputs.figures(drift)]
    if latency:
        how = text(facts.latency_sentence(latency))
        lines.append(f"- latency p50 / p90 / p99: {facts.percentiles(latency)} ({how})")
        if latency["float_p50_ms"] is not None and not facts.is_baseline(report, target):
            named = f" ({text(latency['float_target'])})" if latency.get("float_target") else ""
            lines.append(
                f"- latency of the float file{named} in the same run: {facts.percentiles(latency, 'float_')}"
            )
        machine = report.get("machine", {})
        if machine.get("cpu"):
            lines.append(f"- on: {text(machine['cpu'])}, {text(machine.get('os', ''))}".rstrip(", "))
    else:
        lines.append("- latency: not measured")
    failed = facts.failed_gates(report, target)
    lines += [f"- failed gate {text(g['name'])}: {text(g['detail'])}" for g in failed]
    remarks = facts.remarks_of(report, target)
    lines += [f"- remark {text(g['name'])}: {text(g['detail'])}" for g in remarks]
    return lines


def _origin(report: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    weights = manifest.get("weights") or {}
    data = report.get("provenance", {}).get("data", {})
    calibration = manifest.get("calibration") or {}
    lines = [f"- weights: {text(weights.get('kind', report['weights']))}"]
    if weights.get("source"):
        lines[0] += f", {text(weights['source'])}"
    if weights.get("sha256"):
        lines.append(f"- weights sha256: {code(weights['sha256'])}")
    lines.append(f"- data: {text(data.get('name', report['data']))}")
    if calibration:
        images = units.plural(calibration.get("n", 0), "image")
        lines.append(f"- calibrated on {images} of {text(calibration.get('name', report['data']))}")
        if calibration.get("sha256"):
            lines.append(f"- calibration images sha256: {code(calibration['sha256'])}")
    if data.get("n_evaluation"):
        lines.append(f"- evaluated on {units.plural(data['n_evaluation'], 'image')}")
    lines += [f"- {text(line)}" for line in facts.about_data(report)]
    return lines


def _limitations(report: dict[str, Any], target: str) -> list[str]:
    artifact = report["artifacts"][target]
    drift, latency = artifact.get("drift"), artifact.get("latency")
    lines = []
    if facts.untrained(report):
        lines.append("The weights were never trained; accuracy and agreement mean nothing.")
    if _embedded(report):
        lines.append(
            "The evaluation images are generated figures. Their accuracy shows that the conversion kept the "
            "answers, not how the model does on photographs."
        )
    if not drift:
        lines.append("Accuracy was not measured.")
    elif not facts.labelled(drift):
        lines.append("There were no labels: only agreement with the float model is known, not accuracy.")
    else:
        lines.append(
            f"Accuracy is known on {drift['n']:,} images only; its interval covers the sampling of images, "
            "not a change of camera, light or population."
        )
    if drift and facts.tally(drift["flipped"]):
        lines.append(
            f"{facts.tally(drift['flipped']):,} of {drift['n']:,} answers differ from the float model's."
        )
    if latency:
        lines.append(
            "Latency holds for the machine and runtime named above; measure on the device you ship to."
        )
    if elsewhere := formats.words(target).elsewhere:
        lines.append(elsewhere)
    if outside := facts.tally(artifact["audit"]["undelegated_ops"]):
        names = facts.names(artifact["audit"]["undelegated_ops"])
        named = f": {', '.join(map(code, names[:6]))}" if names else ""
        verb = "operator runs" if outside == 1 else "operators run"
        lines.append(f"{outside} {verb} {formats.words(target).left}{named}.")
    lines.append("Behaviour across groups of people and on hostile input was not examined.")
    return lines


def _golden(manifest: dict[str, Any]) -> str:
    n = len(manifest["golden"])
    if not n:
        return "No golden vectors were written."
    vectors = units.plural(n, "golden vector")
    agree = "integers agree exactly; other kernels may differ by a step or two."
    if manifest["outputs"][0]["dtype"].startswith("float"):
        agree = "the outputs agree within rounding; other kernels may differ more."
    said = "top-5" if _scores(manifest) is not None else "extremes and mean of every output"
    several = "s" if len(manifest["inputs"]) > 1 else ""
    return (
        f"{code('golden/')} holds {vectors}: picture, expected input tensor{several}, expected output tensor"
        f"{'s' if len(manifest['outputs']) > 1 else ''}, {said}. "
        f"Run them on the device: with the same runtime {agree}"
    )
