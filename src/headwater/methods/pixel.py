"""Pixel similarity: the simplest baseline of the D-TRAK paper (appendix A.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.disk.store import FeatureStore
from headwater.errors import DataError, unknown
from headwater.examples import SPACES, Examples
from headwater.families.fields import check_types
from headwater.families.inner import unit


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """τ(q, i) = ⟨x_q, x_i⟩ (`dot`) or ⟨x_q, x_i⟩/(‖x_q‖‖x_i‖) (`cosine`), with pixels in [−1, 1].

    `space`: `pixels`, or the `latents` of the model's auto-encoder (appendix A.3, for ArtBench).

    Needs no model. Blind to what the model learned: a lookalike scores high whether or not it was used.
    """

    title: ClassVar[str] = "Pixel similarity"
    signed: ClassVar[bool] = False

    similarity: str = "cosine"
    space: str = "pixels"

    def __post_init__(self) -> None:
        check_types(self)
        if self.space not in SPACES:
            raise unknown("space", self.space, SPACES)
        if self.similarity not in ("cosine", "dot"):
            raise unknown("similarity", self.similarity, ("cosine", "dot"))

    def fit(
        self, model: object, train: Examples, store: FeatureStore | None = None
    ) -> Float[np.ndarray, "n p"]:
        return self._vectors(train)

    def score(
        self, index: Float[np.ndarray, "n p"], queries: Examples, store: FeatureStore | None = None
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        vectors = self._vectors(queries)
        if vectors.shape[1] != index.shape[1]:
            raise DataError(
                f"A query has {vectors.shape[1]} values and a training image {index.shape[1]}; expected the "
                "same size."
            )
        yield vectors @ index.T

    def self_scores(self, index: Float[np.ndarray, "n p"]) -> Float[np.ndarray, " n"]:
        return np.square(index).sum(axis=1)

    def resolved(self, index: Float[np.ndarray, "n p"]) -> dict[str, object]:
        return {}

    def _vectors(self, examples: Examples) -> Float[np.ndarray, "n p"]:
        vectors = examples.in_space(self.space).reshape(len(examples), -1)
        # mid-grey has no direction, and stays 0
        return vectors if self.similarity == "dot" else unit(vectors)
