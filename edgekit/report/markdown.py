"""report.md: the report as GitHub shows it. A report dict in, Markdown out; every name is made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from edgekit.report import charts, compare, facts, formats, outputs, provenance, sections, units
from edgekit.report.schema import validate
from edgekit.report.section import Section

_SPECIAL = re.compile(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))")  # an underscore inside a word is a letter


def text(value: Any) -> str:
    """A name or a sentence as plain words: one line, no markup, no HTML, no mention of a user."""
    plain = " ".join(str(value).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", plain).replace("@", "&#64;").replace("://", ":&#8203;//")


def code(value: Any) -> str:
    """A name in a code span, safe inside a table."""
    plain = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain or ' '}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """A table of cells that are Markdown already; columns in `right` are aligned right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def render_markdown(report: dict[str, Any]) -> str:
    """The page as text. Raises: ReportError when the report breaks its contract."""
    validate(report)
    verdict = facts.verdict(report)
    lines = [f"# {text(report['model'])}", ""]
    if facts.untrained(report):
        lines += [
            "> [!WARNING]",
            "> **UNTRAINED weights.** Size and latency are real; accuracy means nothing.",
            "",
        ]
    mark = {True: "✅", False: "❌", None: "⚪"}[verdict.ok]
    lines += [f"{mark} **{verdict.word}.** {text(verdict.sentence)}", ""]
    for gate in facts.failed_gates(report):
        where = f" ({_over(gate)})" if gate.get("target") else ""
        hint = f" Try: {text(gate['hint'])}" if gate.get("hint") else ""
        lines.append(f"- **{text(gate['name'])}**{where}: {text(gate['detail'])}.{hint}")
    lines += [f"- {text(line)}" for line in facts.about_data(report)]
    if said := outputs.task_sentence(report):
        lines += ["", f"Task {text(said)}."]
    lines += _targets(report)
    for section in sections.sections(report):
        lines += _section(section)
    lines += _runtimes(report) + _agreement(report)
    for name, artifact in report["artifacts"].items():
        lines += ["", f"## {text(name)}", ""]
        lines += _artifact(name, artifact)
    lines += _gates(report) + _stages(report) + _provenance(report)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _over(gate: dict[str, Any]) -> str:
    """Which artifact a gate is about."""
    target = gate.get("target")
    return "all" if target == "all" else code(target) if target else ""


def _targets(report: dict[str, Any]) -> list[str]:
    rows = []
    for name, artifact in report["artifacts"].items():
        drift, latency = artifact.get("drift"), artifact.get("latency")
        accuracy = facts.accuracy_figure(report, name)
        speed = facts.latency_figure(report, name)
        against = units.NONE
        if latency and speed and not facts.is_baseline(report, name):
            against = f"{facts.percentiles(latency, 'float_')} ({text(speed.comparison) or 'not compared'})"
        partitions = artifact["audit"]["partitions"]
        rows.append([
            code(name),
            f"{facts.size_figure(report, name).text} ({facts.size_figure(report, name).comparison})",
            f"{accuracy.text} ({text(accuracy.comparison)})" if accuracy else "not measured",
            facts.interval(drift) or units.NONE if drift else units.NONE,
            facts.percentiles(latency) if latency else "not measured",
            against,
            str(partitions) if partitions is not None and formats.words(name).delegates else units.NONE,
        ])  # fmt: skip
    head = [
        "target", "size", "accuracy", "drop, 95 % interval, points", "latency p50 / p90 / p99",
        "float latency p50 / p90 / p99", "partitions",
    ]  # fmt: skip
    return ["", *table(head, rows, right=(6,))] if rows else ["", "No artifact was built."]


def _section(section: Section) -> list[str]:
    rows = [[text(cell) for cell in row] for row in section.rows]
    right = range(section.numbers, len(section.head))
    lines = ["", f"## {text(section.title)}", "", text(section.sentence), ""]
    return [*lines, *table(section.head, rows, right=right)]


def _runtimes(report: dict[str, Any]) -> list[str]:
    found = compare.speeds(report)
    if found is None:
        return []
    lines = ["", "## Which runtime is fastest", "", text(found.fastest)]
    if found.held:
        lines[-1] += f" Held equal: {text(found.held)}."
    if found.differing:
        lines[-1] += f" Not held equal: {text(found.differing)}."
    rows = [
        [
            code(r.target) + ("" if r.artifact else " (baseline)"),
            text(r.runtime), text(r.precision), r.p50, r.interval or units.NONE, r.p90, r.p99, r.relative,
        ]
        for r in found.rows
    ]  # fmt: skip
    head = ["target", "runtime", "precision", "p50", "95 % interval", "p90", "p99", "against the fastest"]
    lines += ["", *table(head, rows, right=(3, 4, 5, 6, 7))]
    lines += [line for slower in found.slower for line in ("", f"**{text(slower)}**")]
    told = [f"- {text(runtime)}: {text(words)}" for runtime, words in found.others]
    return lines + (["", "What each was told besides:", "", *told] if told else [])


def _agreement(report: dict[str, Any]) -> list[str]:
    found = compare.agreement(report)
    if found is None:
        return []
    lines = ["", "## Do the artifacts agree", "", f"{text(found.sentence)} Same answer, and SQNR:", ""]
    rows = [
        [
            code(name),
            *(units.NONE if cell.level is None else f"{cell.agreement}, {cell.sqnr}" for cell in row),
        ]
        for name, row in zip(found.targets, found.rows, strict=True)
    ]
    lines += [*table(["", *map(code, found.targets)], rows, right=range(1, len(rows) + 1)), ""]
    lines += [f"- {code(a)} and {code(b)}: {text(said)}." for a, b, said in found.differing]
    if found.more:
        lines.append(f"- and {units.plural(found.more, 'more pair')} in report.json")
    return lines


def _artifact(name: str, artifact: dict[str, Any]) -> list[str]:
    words = formats.words(name)
    audit, drift, latency = artifact["audit"], artifact.get("drift"), artifact.get("latency")
    beside = list(artifact.get("files") or {})[1:]
    together = f" with {', '.join(map(code, beside))}, together" if beside else ","
    lines = [
        f"- file: {code(artifact['path'])}{together} {artifact['size_bytes']:,} bytes",
        f"- sha256: {code(artifact['sha256'])}",
        f"- operators: {units.share(audit['int8_ops_share'])} in int8, {facts.tally(audit['float_ops'])} in "
        f"float, {facts.tally(audit['transposes'])} {words.layout}; input {code(audit['input_dtype'])}, "
        f"output {code(audit['output_dtype'])}",
    ]
    if audit["undelegated_ops"] is not None:
        outside = facts.names(audit["undelegated_ops"])
        named = f": {', '.join(map(code, outside[:12]))}" if outside else ""
        lines.append(f"- {words.left}: {facts.tally(audit['undelegated_ops'])}{named}")
    if kinds := (audit.get("executed") or {}).get("kinds"):
        said = ", ".join(f"{n:,} {text(what)}" for what, n in kinds.items())
        lines.append(f"- executed by {words.runtime}: {said}")
    if fidelity := artifact.get("fidelity"):
        worst = units.NONE if fidelity["max_lsb"] is None else f"{fidelity['max_lsb']:g} LSB"
        lines.append(f"- simulation against the runtime: at most {worst}")
    if drift:
        lines.append(f"- {text(facts.drift_sentence(drift))}")
    if latency:
        note = f"; {text(latency['note'])}" if latency.get("note") else ""
        lines.append(f"- latency: {text(facts.latency_sentence(latency))}{note}")
    lines += [f"- {text(name)}: {text(said)}" for name, said in outputs.figures(drift)]
    if found := outputs.rows(drift):
        cells = [[code(name), *map(text, rest)] for name, *rest in found]
        lines += ["", "Every output against the float model's:", ""]
        lines += table(outputs.HEAD, cells, right=(1, 2, 3, 4))
    profile = charts.error_profile(artifact.get("layers") or [])
    if profile and profile.culprits:
        lines += ["", "Layers whose own quantization adds most to the error:", ""]
        rows = [[str(c.rank), code(c.name), code(c.op), c.share, c.sqnr] for c in profile.culprits]
        lines += table(["", "layer", "operator", "share of error", "SQNR"], rows, right=(3, 4))
    if parts := (artifact.get("quantize") or {}).get("parts"):
        lines += ["", "Quantization, part by part, on calibration images that it was not fitted to:", ""]
        rows = [
            [
                text(p["name"]),
                "on" if p["on"] else "off",
                units.decibels(p.get("sqnr_db_before")),
                units.decibels(p.get("sqnr_db_after")),
                units.decibels(p.get("gain_db"), signed=True),
                units.decibels(p.get("median_gain_db"), signed=True),
                units.decibels(p.get("mean_gain_db"), signed=True),
                str(p.get("judged_images") or units.NONE),
            ]
            for p in parts
        ]
        head = ["part", "", "before", "after", "gain", "median", "mean", "images"]
        lines += table(head, rows, right=(2, 3, 4, 5, 6, 7))
    if notes := facts.trained(artifact):
        lines += ["", *(f"- {text(note)}" for note in notes)]
    return lines


def _gates(report: dict[str, Any]) -> list[str]:
    if not report["gates"]:
        return []
    rows = [
        [
            ("✅" if g["ok"] else "❌") if facts.judged(g) else "remark",
            text(g["name"]),
            _over(g),
            text(g["detail"]),
        ]
        for g in report["gates"]
    ]
    return ["", "## Gates", "", *table(["", "gate", "target", "result"], rows)]


def _stages(report: dict[str, Any]) -> list[str]:
    if not report["stages"]:
        return []
    rows = [
        [text(s["name"]), units.seconds(s["seconds"]), "cached" if s["cached"] else ""]
        for s in report["stages"]
    ]
    return ["", "## Stages", "", *table(["stage", "took", ""], rows, right=(1,))]


def _provenance(report: dict[str, Any]) -> list[str]:
    lines = ["", "## Provenance", ""]
    for title, rows in provenance.provenance(report):
        if title in ("Recipe", "Files"):
            continue
        cells = ", ".join(f"{text(k)} {code(v) if is_code else text(v)}" for k, v, is_code in rows)
        lines.append(f"- **{title}**: {cells}")
    if provenance.created(report):
        lines.append(f"- **Built**: {text(provenance.created(report))}")
    return lines
