"""The template engine of every page, and the style they share.

A page is one file: names are escaped by the engine, and a template that asks for what it was not given is an
error.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from edgekit.report import units


def read(package: str, name: str) -> str:
    """A file of a package's templates."""
    return (files(package) / "templates" / name).read_text("utf-8")


def environment(package: str) -> Any:
    """Jinja's environment over the templates of a package."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(lambda name: read(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(units=units)
    return made


def style(package: str, name: str) -> str:
    """The house's style sheet with a page's own behind it."""
    return f"{read('edgekit.report', 'report.css')}\n{read(package, name)}"
