"""Parts of a data set (train, test), decoded lazily, and the splits that are drawn from them by class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from headwater import seeds
from headwater.errors import DataError, unknown
from headwater.examples import Examples


@dataclass(frozen=True)
class LazySplit:
    """The ids and groups of a part's images, and a function that decodes the images at given rows."""

    ids: list[str]
    groups: Shaped[np.ndarray, " n"] | None
    decoded: Callable[[Int64[np.ndarray, " b"]], UInt8[np.ndarray, "b h w c"]]

    def examples(self, rows: Int64[np.ndarray, " b"], classes: Sequence[str]) -> Examples:
        """The examples at `rows`; a label is the place of the image's group in `classes`."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        if self.groups is None:
            return Examples(self.decoded(rows), ids=ids)
        groups = tuple(self.groups[rows].tolist())
        unknowns = sorted(set(groups) - set(classes))
        if unknowns:
            raise DataError(
                f"{ids[groups.index(unknowns[0])]} is of class '{unknowns[0]}'; expected one of "
                f"{', '.join(classes)}."
            )
        labels = np.array([classes.index(group) for group in groups], np.int64)
        return Examples(self.decoded(rows), ids=ids, labels=labels, groups=groups)


@dataclass(frozen=True)
class DataSet:
    """Classes and splits. A split is a range (in shares) of each class of a part; None: the whole part."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, tuple[float, float] | None]]

    def examples(self, split: str, part_of: Callable[[str], LazySplit]) -> Examples:
        """The split, in a fixed shuffled order; a whole part keeps its own order."""
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        name, stretch = self.splits[split]
        part = part_of(name)
        if stretch is None:
            return part.examples(np.arange(len(part.ids)), self.classes)
        drawn = [self._stretch(part, name, group, *stretch) for group in self.classes]
        rows = seeds.generator(0, self.name, split, "order").permutation(np.concatenate(drawn))
        return part.examples(rows, self.classes)

    def _stretch(
        self, part: LazySplit, name: str, group: str, start: float, stop: float
    ) -> Int64[np.ndarray, " b"]:
        rows = np.flatnonzero(part.groups == group)
        rows = seeds.generator(0, self.name, name, group).permutation(rows)
        return rows[int(len(rows) * start) : int(len(rows) * stop)]
