"""Cross-fitting: hyperparameters are chosen on one half of the queries and reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool

from headwater import seeds
from headwater.evaluate.lds import LDS
from headwater.linalg.rank import Interval

Setting = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Tuned:
    """The LDS of a tuned method: every query's setting was chosen on the other half of the queries."""

    lds: LDS
    chosen: tuple[Setting, Setting]
    oracle: Setting  # best on the very queries it is reported on: never the figure to quote

    def mean(self, queries: Bool[np.ndarray, " q"]) -> Interval:
        return self.lds.mean(queries)


def setting_grid(fields: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """All combinations of the fields' values."""
    plain = [
        [tuple(value) if isinstance(value, list) else value for value in values] for values in fields.values()
    ]
    return [tuple(zip(fields, values, strict=True)) for values in product(*plain)]


def query_halves(queries: Bool[np.ndarray, " q"]) -> tuple[Bool[np.ndarray, " q"], Bool[np.ndarray, " q"]]:
    """The chosen queries in two halves, by a shuffle of a named stream."""
    rows = seeds.generator(0, "halves").permutation(np.flatnonzero(queries))
    first = np.zeros_like(queries)
    first[rows[: len(rows) // 2]] = True
    return first, queries & ~first


def tuned(figures: Mapping[Setting, LDS], queries: Bool[np.ndarray, " q"]) -> Tuned:
    """Cross-fitting: each half has the setting with the highest mean LDS on the other half."""

    def best_on(half: Bool[np.ndarray, " q"]) -> Setting:
        return max(figures, key=lambda setting: figures[setting].per_query[half].mean())

    first, second = query_halves(queries)
    chosen = (best_on(second), best_on(first))  # the first half reports the choice of the second
    one, two = (figures[setting] for setting in chosen)
    lds = LDS(
        np.where(first, one.per_query, two.per_query), lambda: np.where(first, one.bootstrap, two.bootstrap)
    )
    return Tuned(lds, chosen, best_on(queries))
