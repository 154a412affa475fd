"""The report of a build: one dict, checked against a schema, set as HTML, Markdown and a terminal table.

    schema.json   the contract of report.json; `validate` checks a report against it
    facts.py      verdict, headline figures, counts: the words that every rendering shares
    formats.py    file formats and runtimes in words
    compare.py    which runtime is fastest, which artifacts agree
    units.py      numbers as people write them
    charts.py     the geometry of the pictures
    html.py       report.html, self-contained        (templates/)
    markdown.py   report.md
    card.py       MODEL_CARD.md of a bundle
    terminal.py   progress of a build, the summary at its end, the list of models
    inspect.py    what a model file is, for `edgekit inspect`
    preflight.py  what an Edge TPU will take of it, for `edgekit check`

In: plain data only, no torch and no graph. The keys beyond the contract are optional, and what is not there
is left out of the page; README.md beside this file lists them.
"""

from edgekit.report.schema import SCHEMA_VERSION, validate

__all__ = ["SCHEMA_VERSION", "validate"]
