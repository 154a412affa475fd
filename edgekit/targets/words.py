"""How the files of a target are spoken of and loaded, for gates, reports and model cards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Loading:
    """Lines that load a model and run one input, and their language.

    Each line is a format string: `file` the model's name as it is; as literals, `path` the same, `folder` the
    directory around it, `input` and `signature` names of the file.
    """

    language: str
    lines: tuple[str, ...]

    def text(self, **names: str) -> list[str]:
        return [line.format(**names) for line in self.lines]


@dataclass(frozen=True)
class Words:
    """A target's own words.

    runtime: what runs it, as it is spelled in prose; package: as its version is stated.
    seen: where its operators were read.
    left: what an operator is that the runtime did not take over as the file asks. slow: where such an
        operator runs, as a heading. taker: who should have taken it.
    parts: what the runtime cuts a file into; delegates: whether to a delegate, so that the count is telling.
    layout: what an operator is called that only changes a layout.
    gentler: what to build where int8 costs too much accuracy.
    signatures: whether a file is called by a signature's name.
    elsewhere: for a runtime that is not on this machine, who ran the file here and what that leaves open.
    untimed: why it has no latency.
    """

    runtime: str
    package: str
    seen: str
    left: str
    slow: str
    taker: str
    parts: str
    layout: str
    gentler: str
    loading: Loading
    delegates: bool = False
    signatures: bool = False
    elsewhere: str = ""
    untimed: str = ""
