"""Measurements over time: a store of records, and the rule that says whether a run is slower than another."""

from edgekit.history.record import Record, load, schema, validate
from edgekit.history.store import History, Series, default_path, series_of

__all__ = ["History", "Record", "Series", "default_path", "load", "schema", "series_of", "validate"]
