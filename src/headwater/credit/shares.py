"""Credit by group: scores summed over an artist, a label or any other column. No torch.

net(q, g) = Σ_{i∈g} τ[q, i]        share(q, g) = Σ_{i∈g} max(τ[q, i], 0) / Σ_i max(τ[q, i], 0)

The shares of a query sum to 1. With equal credit for every image, a group would get |g|/n: `even`, which is
also its mean share over all ways to deal out the names among the images, whatever the scores. A share is read
against the range of 95 % of these ways.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from headwater import seeds
from headwater.errors import DataError, OptionError
from headwater.linalg.rank import resamples

RESAMPLES = 1000
BLOCK = 2**22  # scores, or resampled images, held in memory at once


class Share(NamedTuple):
    """The credit of one group. A figure that does not exist is NaN.

    `even_low` to `even_high` holds 95 % of the shares of the same number of images drawn at random, with
    these scores; `low` to `high` holds 95 % of the bootstrap samples of this share.
    """

    group: str
    images: int
    even: float
    even_low: float
    even_high: float
    net: float
    share: float
    low: float
    high: float

    def as_json(self) -> dict[str, str | float | None]:
        """The figures by name; one that does not exist is None."""
        return {name: None if value != value else value for name, value in self._asdict().items()}


@dataclass(frozen=True, eq=False)
class Credit:
    """The scores of every query, by group: training image i is in `groups[member[i]]`.

    Proponents and opponents cancel in `net`; `share` leaves scores below 0 out. The shares of a query without
    any score above 0 are NaN. Cost: one pass over the scores each for `net` and `share`, in float64, and
    memory for `block` scores, or resampled images, at a time.
    """

    values: Float[np.ndarray, "q n"]
    groups: tuple[str, ...]
    member: Int64[np.ndarray, " n"]
    block: int = BLOCK

    @cached_property
    def images(self) -> Int64[np.ndarray, " g"]:
        """The number of training images of each group."""
        return np.bincount(self.member, minlength=len(self.groups))

    @property
    def even(self) -> Float64[np.ndarray, " g"]:
        """|g|/n: the share with equal credit for every image."""
        return self.images / len(self.member)

    @cached_property
    def net(self) -> Float64[np.ndarray, "q g"]:
        """Σ_{i∈g} τ[q, i]: the rise of the query's loss when the group is removed, if effects add up."""
        return np.concatenate([self._summed(block) for block in self._blocks()])

    @cached_property
    def share(self) -> Float64[np.ndarray, "q g"]:
        """The group's part of the sum of all positive scores."""
        return np.concatenate([_portions(self._summed(np.maximum(block, 0))) for block in self._blocks()])

    def mean(self, queries: Sequence[int] | Int64[np.ndarray, " c"] | None = None) -> list[Share]:
        """Mean share and net over queries, the largest share first; the interval is a bootstrap over queries.

        The interval is of other queries of the same kind, with these scores. Queries without shares are left
        out of the mean share; fewer than two with shares give no interval.
        """
        rows = np.arange(len(self.values)) if queries is None else np.asarray(queries, np.int64)
        if not len(rows):
            raise OptionError("There are no queries to average over; expected at least one.")
        rows, net = rows[np.isfinite(self.share[rows, 0])], self.net[rows].mean(axis=0)
        shares, none = self.share[rows], np.full((1, len(self.groups)), np.nan)
        if not len(rows):
            return self._ranked(net, none[0], none, none)
        weights, stream = self._weights(rows)[None], seeds.generator(0, "credit", "dealt")
        chance = dealt(weights, self.images, stream, block=self.block)[:, :, 0]
        return self._ranked(net, shares.mean(axis=0), _means(shares) if len(rows) > 1 else none, chance)

    def of(self, query: int) -> list[Share]:
        """One query, the largest share first; the interval is a bootstrap over the images of each group.

        It is wide where a share rests on a few of a group's images. A group of one image is always resampled
        as itself. Resamples without any score above 0 are left out. Cost: 2,000·n random numbers.
        """
        return next(self.each([query]))

    def bare(self, query: int) -> list[Share]:
        """One query without intervals and without the range of chance: no random numbers."""
        none = np.full((1, len(self.groups)), np.nan)
        return self._ranked(self.net[query], self.share[query], none, none)

    def each(
        self,
        queries: Sequence[int] | Int64[np.ndarray, " c"] | None = None,
        tick: Callable[[int, int], None] | None = None,
    ) -> Iterator[list[Share]]:
        """`of` for each of these queries, or of all; they share random numbers, so that many cost less.

        Cost: 2,000·n additions a query; memory for a block of queries.
        """
        rows = np.arange(len(self.values)) if queries is None else np.asarray(queries, np.int64)
        step = max(1, self.block // max(len(self.member), RESAMPLES * len(self.groups)))
        for i in range(0, len(rows), step):
            yield from self._each(rows[i : i + step])
            if tick is not None:
                tick(min(i + step, len(rows)), len(rows))

    def _each(self, rows: Int64[np.ndarray, " c"]) -> Iterator[list[Share]]:
        weights = _portions(np.maximum(self.values[rows], 0).astype(np.float64))
        drawn = _portions(_resampled(weights, self.member, self.images, self.block))
        stream = seeds.generator(0, "credit", "dealt")
        chance = dealt(weights, self.images, stream, block=self.block)
        for place, row in enumerate(rows.tolist()):
            if np.isfinite(self.share[row, 0]):
                samples = drawn[:, :, place]
                finite = samples[np.isfinite(samples[:, 0])]
                yield self._ranked(self.net[row], self.share[row], finite, chance[:, :, place])
            else:
                yield self.mean([row])

    def _blocks(self, rows: Int64[np.ndarray, " c"] | None = None) -> Iterator[Float[np.ndarray, "b n"]]:
        rows = np.arange(len(self.values)) if rows is None else rows
        step = max(1, self.block // len(self.member))
        return (self.values[rows[i : i + step]] for i in range(0, len(rows), step))

    def _weights(self, rows: Int64[np.ndarray, " c"]) -> Float64[np.ndarray, " n"]:
        """The mean share of each image over these queries; a group's mean share is their sum."""
        total = np.zeros(len(self.member))
        for block in self._blocks(rows):
            total += _portions(np.maximum(block, 0).astype(np.float64)).sum(axis=0)
        return total / len(rows)

    @cached_property
    def _order(self) -> Int64[np.ndarray, " n"]:
        return np.argsort(self.member, kind="stable")

    def _summed(self, values: Float[np.ndarray, "b n"]) -> Float64[np.ndarray, "b g"]:
        return np.add.reduceat(values[:, self._order], _starts(self.images), axis=1, dtype=np.float64)

    def _ranked(
        self,
        net: Float64[np.ndarray, " g"],
        share: Float64[np.ndarray, " g"],
        drawn: Float64[np.ndarray, "r g"],
        chance: Float64[np.ndarray, "d g"],
    ) -> list[Share]:
        even, ends = (np.percentile(samples, [2.5, 97.5], axis=0) for samples in (chance, drawn))
        columns = (column.tolist() for column in (self.images, self.even, *even, net, share, *ends))
        shares = [Share(*row) for row in zip(self.groups, *columns, strict=True)]
        return sorted(shares, key=lambda row: (-row.share if row.share == row.share else 0.0, row.group))


def by_group(
    values: Float[np.ndarray, "q n"], names: Sequence[str | int] | np.ndarray, *, block: int = BLOCK
) -> Credit:
    """Scores by group. `names`, one per training image: `train.groups`, `train.labels`, artists …"""
    n = values.shape[1]
    if len(names) != n:
        raise DataError(f"There are {len(names)} names of groups for {n} training images; expected one each.")
    groups, member = np.unique([str(name) for name in names], return_inverse=True)
    return Credit(values, tuple(groups.tolist()), member.astype(np.int64), block)


def _starts(images: Int64[np.ndarray, " g"]) -> Int64[np.ndarray, " g"]:
    return np.cumsum(images) - images


def _portions(gains: Float64[np.ndarray, "b g *c"]) -> Float64[np.ndarray, "b g *c"]:
    """Parts of the sum along the second axis; NaN where there is nothing to divide."""
    total = gains.sum(axis=1, keepdims=True)
    return np.divide(gains, total, out=np.full(gains.shape, np.nan), where=total > 0)


def _means(shares: Float64[np.ndarray, "q g"]) -> Float64[np.ndarray, "r g"]:
    """Mean shares of bootstrap samples of the queries, sorted first so that their order does not matter."""
    q = len(shares)
    picks = resamples(q, RESAMPLES, "credit", "queries")
    counts = np.bincount(
        (picks + q * np.arange(RESAMPLES)[:, None]).ravel(), minlength=RESAMPLES * q
    ).reshape(RESAMPLES, q)
    return counts @ shares[np.lexsort(shares.T)] / q


def _resampled(
    gains: Float64[np.ndarray, "b n"],
    member: Int64[np.ndarray, " n"],
    images: Int64[np.ndarray, " g"],
    block: int,
) -> Float64[np.ndarray, "r g b"]:
    """Sums over each group of bootstrap samples of its images.

    Images are sorted by gain within a group, so that their order among the training images does not matter.
    """
    order = np.lexsort((gains, np.broadcast_to(member, gains.shape)))
    size, first = np.repeat(images, images), np.repeat(_starts(images), images)
    stream = seeds.generator(0, "bootstrap", "credit", "images")
    picks = (
        first + (stream.random((count, len(member))) * size).astype(np.int64)
        for count in _chunks(RESAMPLES, len(member), block)
    )
    return _sums(np.take_along_axis(gains, order, axis=1), picks, images)


def dealt(
    gains: Float64[np.ndarray, "b n"],
    images: Int64[np.ndarray, " g"],
    stream: np.random.Generator,
    deals: int = RESAMPLES,
    *,
    block: int = BLOCK,
) -> Float64[np.ndarray, "r g b"]:
    """Sums over groups of these sizes, drawn without replacement, whatever the order of gains."""
    places = np.arange(gains.shape[1])
    picks = (
        stream.permuted(np.broadcast_to(places, (count, len(places))), axis=1)
        for count in _chunks(deals, len(places), block)
    )
    return _sums(np.sort(gains, axis=1), picks, images)


def _chunks(total: int, n: int, block: int) -> Iterator[int]:
    """The numbers of resamples of n images that are drawn at once, `total` together."""
    step = max(1, block // n)
    return (min(step, total - i) for i in range(0, total, step))


def _sums(
    gains: Float64[np.ndarray, "b n"],
    picks: Iterator[Int64[np.ndarray, "_ n"]],
    images: Int64[np.ndarray, " g"],
) -> Float64[np.ndarray, "r g b"]:
    """Sums of each resample's picks over each group's places: one sparse product for all queries."""
    from scipy.sparse import csr_array  # slow to load, and only intervals need it

    columns, sums = np.ascontiguousarray(gains.T), []
    for picked in picks:
        starts = np.arange(len(picked))[:, None] * len(columns) + _starts(images)
        rows = csr_array(
            (np.ones(picked.size), picked.ravel(), np.append(starts, picked.size)),
            shape=(starts.size, len(columns)),
        )
        sums.append((rows @ columns).reshape(*starts.shape, len(gains)))
    return np.concatenate(sums)
