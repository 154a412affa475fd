"""Images that are opened only when a stage needs them, and an identity that is known before that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgekit.data.arrays import ArrayImages
from edgekit.data.shapes import GENERATED

if TYPE_CHECKING:
    from edgekit.data import ImageSet
    from edgekit.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Source:
    """`count` images of one split of `spec`; see edgekit.data.open_images."""

    spec: str
    split: str
    count: int
    preprocessing: Preprocessing

    @property
    def generated(self) -> bool:
        """Whether the images are made here, and no files."""
        return self.spec in GENERATED

    @cached_property
    def images(self) -> ImageSet:
        from edgekit.data import open_images

        return open_images(self.spec, self.split, self.count, self.preprocessing)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the images are, as JSON: the recipe of a generated set, the bytes of a folder's files."""
        known = {"spec": self.spec, "split": self.split, "preprocessing": self.preprocessing.to_dict()}
        if self.generated:
            return known | {"count": self.count}
        return known | {"sha256": self.images.sha256}

    def first(self, count: int) -> ImageSet:
        """The first few, without opening the rest."""
        if "images" in self.__dict__ or not self.generated:
            return self.images.first(count)
        return replace(self, count=min(count, self.count)).images


@dataclass(frozen=True)
class Given:
    """Images a caller handed over."""

    images: ArrayImages

    def first(self, count: int) -> ArrayImages:
        return self.images.first(count)

    @property
    def identity(self) -> dict[str, Any]:
        return {"sha256": self.images.sha256}
