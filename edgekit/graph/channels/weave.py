"""Orders that a transposition of channels weaves, and where they may be cut again.

A channel shuffle writes rows (R, k) in the order of their columns. With some channels gone from each row, the
j-th that is left of every row forms the j-th column, whatever their old positions were. A later boundary, a
split or the edge of a group, finds the same channels on either side only if the rows' kept counts before it
fall off by at most one from the first row to the last: that is the condition recorded here. Rows may
themselves be pieces of an earlier weave, whose order must then hold at the same place.

Enters: tags in the order of their elements. Leaves: `prefixes`, for each boundary the atoms of each row
before it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgekit.graph.channels.atoms import Atoms, Tag


@dataclass
class _Line:
    """Atoms in order, with the weave and the place in it that each came from (-1: none)."""

    atoms: np.ndarray
    weave: np.ndarray
    place: np.ndarray


class Weaves:
    def __init__(self, atoms: Atoms) -> None:
        self.prefixes: list[list[np.ndarray]] = []
        self._atoms = atoms
        self._rows: list[list[_Line]] = []
        self._weave = np.full(1, -1, np.int32)
        self._place = np.full(1, -1, np.int32)
        self._cut: set[tuple[int, int]] = set()

    def record(self, matrix: Tag, why: str) -> None:
        """Rows (R, k) will be read column by column."""
        if len(np.unique(matrix)) != matrix.size or (matrix == 0).any():
            self._atoms.along(matrix, [0], why)  # same columns go in every row, so the order is kept
            return
        self._grow()
        self._rows.append([self._line(row) for row in matrix])
        woven = matrix.T.ravel()
        self._weave[woven] = len(self._rows) - 1
        self._place[woven] = np.arange(woven.size)

    def segment(self, atoms: np.ndarray) -> None:
        """This piece of a tag must hold the same elements once others are gone."""
        self._grow()
        for begin, end in _runs(self._line(atoms)):
            weave, first = int(self._weave[atoms[begin]]), int(self._place[atoms[begin]])
            if weave >= 0:
                self._boundary(weave, first)
                self._boundary(weave, first + end - begin)

    def _boundary(self, weave: int, place: int) -> None:
        rows = self._rows[weave]
        size = len(rows) * len(rows[0].atoms)
        if place in (0, size) or (weave, place) in self._cut:
            return
        self._cut.add((weave, place))
        lengths = [-(-(place - i) // len(rows)) for i in range(len(rows))]
        self.prefixes.append([row.atoms[:n] for row, n in zip(rows, lengths, strict=True)])
        for row, n in zip(rows, lengths, strict=True):
            if not 0 < n < len(row.atoms):
                continue
            before, after = n - 1, n
            if row.weave[before] >= 0 and row.weave[before] == row.weave[after]:
                self._boundary(int(row.weave[before]), int(row.place[before]) + 1)

    def _line(self, atoms: np.ndarray) -> _Line:
        return _Line(atoms.copy(), self._weave[atoms].copy(), self._place[atoms].copy())

    def _grow(self) -> None:
        missing = self._atoms.count - len(self._weave)
        if missing > 0:
            more = np.full(missing, -1, np.int32)
            self._weave, self._place = np.append(self._weave, more), np.append(self._place, more)


def _runs(line: _Line) -> list[tuple[int, int]]:
    """Maximal runs of neighbours in one weave."""
    breaks = (np.diff(line.weave) != 0) | ((np.diff(line.place) != 1) & (line.weave[1:] >= 0))
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(line.atoms)]
    return list(itertools.pairwise(edges))
