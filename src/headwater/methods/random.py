"""The null method, a row of every table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt64

from headwater import seeds
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.fields import check_types


@dataclass(frozen=True, kw_only=True)
class Random:
    """τ(q, i) ~ uniform(−1, 1), a hash of (seed, picture q, picture i): no information, equal in every run.

    LDS is 0 up to chance. Needs no model.
    """

    title: ClassVar[str] = "Random"
    signed: ClassVar[bool] = True

    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)

    def fit(self, model: object, train: Examples, store: FeatureStore | None = None) -> Examples:
        return train

    def score(
        self, index: Examples, queries: Examples, store: FeatureStore | None = None
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        yield _uniform(self._numbers(queries)[:, None] * np.uint64(3) + self._numbers(index))

    def self_scores(self, index: Examples) -> Float[np.ndarray, " n"]:
        numbers = self._numbers(index)
        return _uniform(numbers * np.uint64(3) + numbers)

    def resolved(self, index: Examples) -> dict[str, object]:
        return {}

    def _numbers(self, examples: Examples) -> UInt64[np.ndarray, " n"]:
        """64 random bits for each picture."""
        return np.array(
            [seeds.key(self.seed, "random", content, bits=64) for content in examples.hashes], np.uint64
        )


def _uniform(bits: UInt64[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """Well-mixed numbers in [−1, 1): the finalizer of splitmix64 (Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return (bits >> np.uint64(11)).astype(np.float64) / 2**52 - 1
