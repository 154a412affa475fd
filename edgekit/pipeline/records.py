"""Records of proofs as files: a dataclass in, JSON out, and back by its own type hints.

A record holds what JSON holds (infinities and NaN too, as Python writes them), tuples and other records;
where a field may be one of several records, the file says which, by the class's name.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from cattrs import Converter


def write(path: Path, record: Any) -> None:
    """Write a record, a dataclass."""
    path.write_text(json.dumps(_CONVERTER.unstructure(record)))


def read(path: Path, kind: type) -> Any:
    """The record of that class that `write` left, equal to what was written."""
    return _CONVERTER.structure(json.loads(path.read_text()), kind)


def _members(hint: Any) -> list[Any]:
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return [member for member in typing.get_args(hint) if member is not type(None)] if is_union else []


def _of_records(hint: Any) -> bool:
    return len(_members(hint)) > 1 and all(map(is_dataclass, _members(hint)))


def _of_numbers_and_words(hint: Any) -> bool:
    return len(_members(hint)) > 1 and not any(map(is_dataclass, _members(hint)))


def _named(_hint: Any) -> Any:
    def unstructure(record: Any) -> Any:
        return None if record is None else {"record": type(record).__name__, **_CONVERTER.unstructure(record)}

    return unstructure


def _by_name(hint: Any) -> Any:
    kinds = {member.__name__: member for member in _members(hint)}

    def structure(content: Any, _hint: Any) -> Any:
        if content is None:
            return None
        fields = {key: value for key, value in content.items() if key != "record"}
        return _CONVERTER.structure(fields, kinds[content["record"]])

    return structure


_CONVERTER = Converter()
_CONVERTER.register_unstructure_hook_factory(_of_records, _named)
_CONVERTER.register_structure_hook_factory(_of_records, _by_name)
_CONVERTER.register_structure_hook_func(_of_numbers_and_words, lambda content, _: content)
