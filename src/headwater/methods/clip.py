"""Similarity of embeddings: CLIP (Radford et al. 2021, arXiv:2103.00020) in the D-TRAK paper, or any
other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import unknown
from headwater.examples import Examples
from headwater.families.embedding import EXAMPLE, Embedder, embeddings, loaded, name_of
from headwater.families.fields import check_types
from headwater.families.inner import unit

Vectors = Float[np.ndarray, "n d"]


class Embeddings(NamedTuple):
    """The device that embeds, and the training images' embeddings."""

    device: str
    vectors: Vectors


@dataclass(frozen=True, kw_only=True)
class CLIP:
    """τ(q, i) = cos(e(x_q), e(x_i)) (`cosine`) or ⟨e(x_q), e(x_i)⟩ (`dot`), with e an image embedder.

    `embedder`: a CLIP of transformers by folder or hub name, or a user's function or Embedder by
    `package.module:name`; tables print its name. Blind to the diffusion model: a lookalike scores high
    whether or not it was used."""

    signed: ClassVar[bool] = False

    embedder: str | Embedder = EXAMPLE
    similarity: str = "cosine"

    def __post_init__(self) -> None:
        check_types(self)
        if self.similarity not in ("cosine", "dot"):
            raise unknown("similarity", self.similarity, ("cosine", "dot"))

    @property
    def title(self) -> str:
        """The title names the embedder: an EfficientNet is no CLIP."""
        name = self.embedder.name if isinstance(self.embedder, Embedder) else name_of(self.embedder)
        return f"{name} similarity"

    @property
    def fingerprint(self) -> str | None:
        """The embedder's fingerprint, None if it has none: two embedders may share a name."""
        return self._embedder("cpu").fingerprint

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Embeddings:
        device = "cpu" if model is None else str(model.device)
        return Embeddings(device, self._vectors(device, train, store))

    def score(
        self, index: Embeddings, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        yield self._vectors(index.device, queries, store) @ index.vectors.T

    def self_scores(self, index: Embeddings) -> Float[np.ndarray, " n"]:
        return np.square(index.vectors).sum(axis=1)

    def resolved(self, index: Embeddings) -> dict[str, object]:
        return {"width": index.vectors.shape[1]}

    def _vectors(self, device: str, examples: Examples, store: FeatureStore) -> Vectors:
        vectors = embeddings(self._embedder(device), examples, store)
        return unit(vectors) if self.similarity == "cosine" else vectors

    def _embedder(self, device: str) -> Embedder:
        if isinstance(self.embedder, Embedder):
            return self.embedder
        return loaded(self.embedder, device)
