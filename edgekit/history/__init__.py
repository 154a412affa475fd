"""Measurements over time: a store of records, and the rule that says whether a run is slower than another."""

from edgekit.history.record import Record, schema, validate
from edgekit.history.results import load, records_of
from edgekit.history.store import History, Series, default_path, series_of

__all__ = [
    "History",
    "Record",
    "Series",
    "default_path",
    "load",
    "records_of",
    "schema",
    "series_of",
    "validate",
]
