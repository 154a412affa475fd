"""Atoms: the smallest parts that a value's elements belong to, and what ties them.

A tag is an array of atoms with the dimensions of its value, each of size 1 (nothing varies along it) or of
the value's own size. Atom 0 stays whatever happens. Ties accumulate while a graph is walked and are resolved
once, into classes.

A derived atom stands for a line of others: it goes when all of them go, and then only. It is what a value
keeps of a dimension that was summed away while others remain: a head of attention after its product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Tag = np.ndarray


def nothing(rank: int) -> Tag:
    """The tag of a value of which no part can go."""
    return np.zeros((1,) * rank, np.int32)


def varying(tag: Tag) -> list[int]:
    """The dimensions along which a tag has different atoms."""
    return [dim for dim, size in enumerate(tag.shape) if size > 1]


def components(count: int, ties: np.ndarray) -> np.ndarray:
    """The component of each of `count` points, tied in pairs (2, n)."""
    links = coo_array((np.ones(ties.shape[1], bool), (ties[0], ties[1])), (count, count))
    return connected_components(links, directed=False)[1]


class Atoms:
    """All atoms of a graph, their ties and why some of them stay."""

    def __init__(self) -> None:
        self.count = 1
        self.derived: list[tuple[int, np.ndarray]] = []
        self._ties: list[np.ndarray] = []  # (2, n)
        self._stays: list[tuple[np.ndarray, str]] = []
        self._known: dict[bytes, int] = {}

    def fresh(self, count: int) -> Tag:
        """New atoms, (count,)."""
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int32)

    def tie(self, a: Tag, b: Tag, why: str) -> None:
        """Elements of two tags that broadcast against each other stand and fall together."""
        pair = np.stack([x.ravel() for x in np.broadcast_arrays(a, b)])
        pair = pair[:, pair[0] != pair[1]]
        if not pair.size:
            return
        fixed = (pair == 0).any(0)
        if fixed.any():
            self._stays.append((np.unique(pair[:, fixed]), why))
        if not fixed.all():
            self._ties.append(np.unique(pair[:, ~fixed], axis=1))

    def stay(self, tag: Tag, why: str) -> None:
        """Nothing of a tag can go."""
        self._stays.append((np.unique(tag), why))

    def along(self, tag: Tag, dims: Iterable[int], why: str) -> Tag:
        """Tie whole lines, so that the tag no longer varies along `dims`."""
        for dim in dims:
            if tag.shape[dim] > 1:
                first = tag.take([0], dim)
                self.tie(first, tag, why)
                tag = first
        return tag

    def derive(self, tag: Tag, dims: Iterable[int], why: str) -> Tag:
        """What is left of a tag once `dims` are summed away: for each remaining index one atom for its line.

        Of dimensions outside a remaining one the lines are tied: theirs would differ in position.
        """
        dropped = [dim for dim in dims if tag.shape[dim] > 1]
        kept = [dim for dim in varying(tag) if dim not in dropped]
        if not dropped:
            return tag
        if not kept:
            return nothing(tag.ndim)
        tag = self.along(tag, [dim for dim in dropped if dim < max(kept)], why)
        inner = [dim for dim in dropped if dim > max(kept)]
        if not inner:
            return tag
        shape = [1 if dim in inner else size for dim, size in enumerate(tag.shape)]
        lines = np.moveaxis(tag, inner, range(-len(inner), 0)).reshape(int(np.prod(shape)), -1)
        return np.array([self._line(np.unique(line)) for line in lines], np.int32).reshape(shape)

    def _line(self, members: np.ndarray) -> int:
        if len(members) == 1:
            return int(members[0])
        key = members.tobytes()
        if key not in self._known:
            self._known[key] = int(self.fresh(1)[0])
            self.derived.append((self._known[key], members))
        return self._known[key]

    def classes(self, whole: Sequence[Tag]) -> tuple[np.ndarray, dict[int, str]]:
        """The class of every atom, 0 for what stays, and why each atom that stays does.

        whole: tags of values of which something must be left; a class that is all of one stays.
        """
        ties = np.concatenate(self._ties, 1) if self._ties else np.zeros((2, 0), np.int32)
        fixed = [(atoms, why) for atoms, why in self._stays]
        while True:
            labels = components(self.count, ties)
            reasons: dict[int, str] = {}
            for atoms, why in fixed:
                for label in np.unique(labels[atoms]).tolist():
                    reasons.setdefault(label, why)
            reasons[int(labels[0])] = "it stays"
            for tag in whole:
                found = np.unique(labels[tag])
                if len(found) == 1:
                    reasons.setdefault(int(found[0]), "its channels move as one")
            more = self._settle(labels, reasons)
            if not more:
                break
            ties = np.concatenate([ties, np.array(more, np.int32).T], 1)
        dead = np.zeros(labels.max() + 1, bool)
        dead[list(reasons)] = True
        stays = {int(atom): reasons[int(labels[atom])] for atom in np.flatnonzero(dead[labels])}
        labels = np.where(dead[labels], 0, labels + 1)
        return np.unique(labels, return_inverse=True)[1].astype(np.int32), stays

    def _settle(self, labels: np.ndarray, reasons: dict[int, str]) -> list[tuple[int, int]]:
        """Ties that follow from derived atoms: of a line of one class, of one that holds what stays, of equal
        lines.
        """
        more = []
        alike: dict[bytes, int] = {}
        for atom, members in self.derived:
            found = np.unique(labels[members])
            own = int(labels[atom])
            if len(found) == 1 and own != found[0]:
                more.append((atom, int(members[0])))
            elif len(found) > 1 and own not in reasons and any(int(label) in reasons for label in found):
                more.append((atom, 0))
            first = alike.setdefault(found.tobytes(), atom)
            if labels[first] != own:
                more.append((first, atom))
        return more
