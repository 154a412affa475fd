"""The report of a run as a page: report.json of the farm in, HTML and Markdown out.

The page is one file in the look of the build report: it asks for nothing over a network and runs no script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from edgekit.report import template, units

PROBLEMS_SHOWN = 16
_TONE = {"regression": "bad", "improvement": "good"}
_NONE = units.NONE


@cache
def _environment() -> Any:
    environment = template.environment("edgekit.farm")
    environment.filters["breakable"] = _breakable
    return environment


def render_html(report: Mapping[str, Any]) -> str:
    """The page as text."""
    counts, boards = report["counts"], report["boards"]
    models = [_model(name, rows) for name, rows in _by_model(report).items()]
    return str(
        _environment()
        .get_template("farm.html.j2")
        .render(
            report=report,
            css=template.style("edgekit.farm", "farm.css"),
            created=_day(report["created"]),
            verdict=verdict(report),
            problems=problems(report),
            missing=_missing(report),
            total=sum(counts.values()),
            measured=counts["valid"] + counts["INVALID"],
            compared=sum(_compared(job) for job in report["jobs"]),
            bad_boards=sum(bool(board["bad"]) for board in boards.values()),
            models=models,
            boards=[_board(name, board) for name, board in boards.items()],
        )
    )


def render_markdown(report: Mapping[str, Any]) -> str:
    """The same in Markdown."""
    said = verdict(report)
    lines = [f"# {title(report)}", "", f"**{said['word']}** {said['sentence']}", ""]
    lines += [f"- {_cell(p['what'])}: {_cell(p['reason'])}" for p in problems(report)["shown"]]
    if report["unfinished"]:
        lines += ["", f"{_missing(report)}: `{report['unfinished']['command']}` goes on."]
    for name, rows in _by_model(report).items():
        lines += [
            "",
            f"## {_cell(name)}",
            "",
            "| board | target | p50 | p90 | p99 | state | answers | change |",
        ]
        lines += ["|---|---|---:|---:|---:|---|---|---|"]
        for job in rows:
            row = table_row(job)
            state = ": ".join([job["status"], *(["; ".join(job["reasons"])] if job["reasons"] else [])])
            change = " ".join(part for part in (row["percent"], row["verdict"], row["why"]) if part)
            cells = [
                job["device"],
                job["target"],
                row["p50"],
                row["p90"],
                row["p99"],
                state,
                row["answers"],
                change,
            ]
            lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    lines += ["", "## Boards", "", "| board | kind | jobs | in use | state |", "|---|---|---:|---:|---|"]
    for name, board in report["boards"].items():
        cells = [name, board["kind"], board["jobs"], units.seconds(board["busy_s"]), board["bad"] or "ok"]
        lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def title(report: Mapping[str, Any]) -> str:
    """'3 models on 4 boards'."""
    models = len({job["model"] for job in report["jobs"]})
    return f"{units.plural(models, 'model')} on {units.plural(len(report['boards']), 'board')}"


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """Word and sentence over the whole run."""
    counts, slower = report["counts"], report["regressions"]
    total = sum(counts.values())
    wrong = total - counts["valid"]
    if not wrong and not slower and report["exclusive"]:
        return {
            "ok": True,
            "word": "All measured.",
            "sentence": f"All {units.plural(total, 'job')} gave valid figures.",
        }
    parts = [f"{counts['valid']} of {units.plural(total, 'job')} gave valid figures"]
    parts += [f"{counts[status]} {status}" for status in counts if status != "valid" and counts[status]]
    if slower:
        parts.append(f"{slower} slower than before")
    if not report["exclusive"]:
        parts.append("a board was used by two jobs at once")
    word = "Slower than before." if slower and not wrong else "Not all measured."
    if report["interrupted"]:
        word = "Interrupted."
    return {"ok": False, "word": word, "sentence": f"{', '.join(parts)}."}


def problems(report: Mapping[str, Any]) -> dict[str, Any]:
    """What to look at: regressions first, then what has no valid figures; equal reasons of a board once."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for job in report["jobs"]:
        name = f"{job['model']} {job['target']}"
        if job["change"] and job["change"]["verdict"] == "regression":
            found[("slower", f"{name} on {job['device']}", job["change"]["words"])] = [name]
    for job in sorted(report["jobs"], key=lambda job: job["status"]):
        if job["status"] != "valid":
            key = (job["status"], job["device"], "; ".join(job["reasons"]))
            found.setdefault(key, []).append(f"{job['model']} {job['target']}")
    rows = []
    for (status, where, reason), names in found.items():
        if status == "slower":
            rows.append({"what": where, "reason": reason, "tag": "slower"})
        else:
            what = names[0] if len(names) == 1 else units.plural(len(names), "job")
            rows.append({"what": f"{what} on {where}", "reason": reason, "tag": status})
    return {"shown": rows[:PROBLEMS_SHOWN], "more": max(0, len(rows) - PROBLEMS_SHOWN)}


def _missing(report: Mapping[str, Any]) -> str:
    """'7 of 10 jobs are missing', or nothing."""
    left, total = report["unfinished"], sum(report["counts"].values())
    if not left:
        return ""
    return f"{left['jobs']} of {units.plural(total, 'job')} {'is' if left['jobs'] == 1 else 'are'} missing"


def sparkline(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The course of p50 in a box of 100 x 24: a path over valid runs, marks at INVALID ones."""
    valid = [point["p50_ms"] for point in points if point["ok"]]
    if len(points) < 2 or not valid:
        return None
    low, high = min(valid), max(valid)
    middle, span = (low + high) / 2, max(high - low, 0.06 * high)  # noise must not look like a cliff

    def x(i: int) -> float:
        return round(3 + 94 * i / (len(points) - 1), 2)

    def y(value: float) -> float:
        return round(12 - 18 * (value - middle) / span, 2)

    line = [(x(i), y(point["p50_ms"])) for i, point in enumerate(points) if point["ok"]]
    return {
        "path": "M" + "L".join(f"{a} {b}" for a, b in line),
        "last": line[-1] if points[-1]["ok"] else None,
        "invalid": [x(i) for i, point in enumerate(points) if not point["ok"]],
        "words": f"p50 of {units.plural(len(points), 'run')}: {_ms(low)} to {_ms(high)}",
    }


def _by_model(report: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    models: dict[str, list[Mapping[str, Any]]] = {}
    for job in report["jobs"]:
        models.setdefault(job["model"], []).append(job)
    return models


def _model(name: str, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    widest = max((_p50(job) or 0.0 for job in jobs), default=0.0) or 1.0
    rows = [table_row(job, widest) for job in jobs]
    names = Counter((job["target"], job["device"]) for job in jobs)
    for row in rows:  # two builds of one model and target
        job = row["job"]
        row["mark"] = job["sha256"][:8] if names[job["target"], job["device"]] > 1 else ""
    targets: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["bar"]):
        if row["bar"]:
            targets.setdefault(row["job"]["target"], []).append(row)
    timed = [(p50, job) for job in jobs if job["status"] == "valid" and (p50 := _p50(job))]
    devices = {job["device"] for job in jobs}
    fastest = "No valid figure."
    if timed:
        p50, best = min(timed, key=lambda pair: pair[0])
        fastest = f"Fastest: {best['target']} on {best['device']}, {_ms(p50)} median."
    return {
        "name": name,
        "rows": rows,
        "charts": targets,
        "sentence": f"{units.plural(len(jobs), 'job')} on {units.plural(len(devices), 'board')}. {fastest}",
    }


def table_row(job: Mapping[str, Any], widest: float = 1.0) -> dict[str, Any]:
    """One job in words; `bar` is its median in percent of `widest` milliseconds."""
    figures, change = job["figures"] or {}, job["change"]
    word, percent, why, tone = "", "", "", ""
    if change:
        word, tone = change["verdict"], _TONE.get(change["verdict"], "")
        percent = _percent(change["percent"]) if change["percent"] is not None else ""
        if word == "no verdict":
            why = f"{change['processes'][1]} processes: too few"
        elif word == "not comparable":
            why = change["words"]
    elif job["status"] == "valid":
        word = "first run"
    sustained = job.get("sustained")
    return {
        "job": job,
        **{key: _ms(figures.get(f"{key}_ms")) for key in ("p50", "p90", "p99")},
        "p99_unsure": bool(figures) and not figures["p99_supported"],
        "between": _between(figures.get("p50_interval")),
        "bar": round(100 * (_p50(job) or 0.0) / widest, 2),
        "ok": job["status"] == "valid",
        "reason": "; ".join(job["reasons"]),
        "answers": answers(job["drift"]),
        "exact": bool(job["drift"]) and job["drift"]["identical"] == job["drift"]["inputs"],
        "verdict": word,
        "percent": percent,
        "why": why,
        "words": change["words"] if change else "",
        "tone": tone,
        "spark": sparkline(job["points"]),
        "delegate": _delegate(job),
        "heat": _heat(sustained) if sustained else "",
    }


def answers(drift: Mapping[str, Any] | None) -> str:
    """Whether the board answered as the reference did, in words."""
    if drift is None:
        return _NONE
    if drift["identical"] == drift["inputs"]:
        said = f"all {drift['inputs']} bit for bit"
    else:
        distance = (
            f"up to {drift['max_lsb']} LSB"
            if drift["max_lsb"] is not None
            else f"up to {_share(drift['max_difference'] or 0.0)} apart"
        )
        said = f"{drift['identical']} of {drift['inputs']} bit for bit, {distance}"
        if drift["argmax_agreement"] is not None:
            said += f", {units.share(drift['argmax_agreement'])} the same class"
    if drift["top1_device"] is not None and drift["top1_device"] != drift["top1_reference"]:
        said += (
            f", top-1 {units.share(drift['top1_device'])} (reference {units.share(drift['top1_reference'])})"
        )
    return said


def _delegate(job: Mapping[str, Any]) -> str:
    if job["runtime"] is None:
        return ""
    parts = [job["runtime"]]
    if job["delegate"] != "none":
        parts.append(job["delegate"])
    if job["partitions"]:
        parts.append(units.plural(job["partitions"], "partition"))
    return ", ".join(parts)


def _heat(sustained: Mapping[str, Any]) -> str:
    first, last = (sustained[key] for key in ("first_minute_ms", "last_minute_ms"))
    return f"minute 1 {_ms(first)}, minute {sustained['minutes']:g} {_ms(last)}"


def _board(name: str, board: Mapping[str, Any]) -> dict[str, Any]:
    return {**board, "name": name, "busy": units.seconds(board["busy_s"])}


def _compared(job: Mapping[str, Any]) -> bool:
    return bool(job["change"]) and job["change"]["verdict"] not in ("not comparable", "no verdict")


def _p50(job: Mapping[str, Any]) -> float | None:
    return job["figures"]["p50_ms"] if job["figures"] else None


def _ms(value: float | None) -> str:
    return _NONE if value is None else units.said(units.milliseconds(value))


def _percent(value: float) -> str:
    text = f"{abs(value):.1f}"
    sign = "" if not float(text) else units.MINUS if value < 0 else "+"
    return f"{sign}{text} %"


def _share(fraction: float) -> str:
    """Of the largest value; float arithmetic alone is far below a hundredth of a percent."""
    return "0.01 %" if fraction < 1e-4 else units.share(fraction, 2)


def _between(interval: Sequence[float] | None) -> str:
    """'7.18 to 7.21 ms', short enough for one line of a phone's column."""
    if not interval:
        return ""
    low, high = map(_ms, interval)
    number, _, unit = low.rpartition(" ")
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def _day(created: str) -> str:
    return datetime.fromisoformat(created).strftime("%-d %B %Y, %H:%M UTC")


def _cell(text: str) -> str:
    """Text for a Markdown table: nothing in it ends the cell or becomes HTML."""
    for character, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`")):
        text = text.replace(character, written)
    return " ".join(text.split())


def _breakable(text: str) -> Any:
    """Let a long dotted or underscored name wrap at its joints."""
    import re

    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._/\-])(?=[^\s;])", r"\1<wbr>", str(escape(text))))
