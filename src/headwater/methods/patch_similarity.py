"""Similarity of best-matching patches: the plain counterpart of NDA, for pixels or embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError, check_at_least
from headwater.examples import Examples
from headwater.families.embedding import Embedder, embeddings, loaded
from headwater.families.fields import check_types
from headwater.families.inner import unit

BLOCK = 32  # training images compared at a time

PlaceVectors = Float32[np.ndarray, "n places d"]


class PatchVectors(NamedTuple):
    """The device that embeds, and the vectors of the training images' patches."""

    device: str
    vectors: PlaceVectors


@dataclass(frozen=True, kw_only=True)
class PatchSimilarity:
    """τ(q, i) = mean_a max_b cos(e(x_q[a]), e(x_i[b])), over the patches a of the query and b of the training
    image.

    e is the identity on pixels in [−1, 1], or an `embedder` as for `clip`. Patches are squares of `patch`
    pixels, `stride` pixels apart, within the picture.

    Needs no model. Common patches count as much as rare ones: any plain background resembles any other.
    """

    title: ClassVar[str] = "Patch similarity"
    signed: ClassVar[bool] = False

    patch: int = 5
    stride: int = 1
    embedder: str | Embedder | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(1, self, "patch", "stride")

    @property
    def fingerprint(self) -> str | None:
        """The embedder's fingerprint, None if it has none: two embedders may share a name."""
        return "pixels" if self.embedder is None else self._embedder("cpu", self.embedder).fingerprint

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> PatchVectors:
        device = "cpu" if model is None else str(model.device)
        return PatchVectors(device, self._vectors(device, train, store))

    def score(
        self, index: PatchVectors, queries: Examples, store: FeatureStore
    ) -> Iterator[Float32[np.ndarray, "q b"]]:
        self._check_fits(queries)
        width = self.patch**2 * queries.shape[0] if self.embedder is None else index.vectors.shape[2]
        if width != index.vectors.shape[2]:
            raise DataError(
                f"A query's patches have {width} numbers, patches of training images "
                f"{index.vectors.shape[2]}; expected the same."
            )
        return self._blocks(index.vectors, self._vectors(index.device, queries, store))

    def _blocks(
        self, train: PlaceVectors, queries: Float32[np.ndarray, "q places d"]
    ) -> Iterator[Float32[np.ndarray, "q b"]]:
        """The mean similarity of each patch's best match, for BLOCK training images at a time."""
        for low in range(0, len(train), BLOCK):
            block = train[low : low + BLOCK]
            flat = block.reshape(-1, block.shape[2]).T
            best = [(query @ flat).reshape(len(query), len(block), -1).max(2).mean(0) for query in queries]
            yield np.array(best, np.float32)

    def self_scores(self, index: PatchVectors) -> Float32[np.ndarray, " n"]:
        """The share of an image's patches with a direction: each is its own best match."""
        return np.square(index.vectors).sum(2).mean(1)

    def resolved(self, index: PatchVectors) -> dict[str, object]:
        return {"places": index.vectors.shape[1], "width": index.vectors.shape[2]}

    def _vectors(self, device: str, examples: Examples, store: FeatureStore) -> PlaceVectors:
        self._check_fits(examples)
        patches = _cut(examples.images, self.patch, self.stride)
        flat = patches.reshape(-1, *patches.shape[2:])
        if self.embedder is None:
            vectors = flat.reshape(len(flat), -1).astype(np.float32) / np.float32(127.5) - 1
        else:
            vectors = embeddings(self._embedder(device, self.embedder), Examples(flat), store)
        return unit(vectors).reshape(*patches.shape[:2], -1)

    def _check_fits(self, examples: Examples) -> None:
        side = min(examples.shape[1:])
        if self.patch > side:
            raise OptionError(
                f"patch is {self.patch}; the images have {side} pixels. Expected at most {side}."
            )

    def _embedder(self, device: str, name: str | Embedder) -> Embedder:
        return name if isinstance(name, Embedder) else loaded(name, device)


def _cut(
    images: UInt8[np.ndarray, "n h w c"], patch: int, stride: int
) -> UInt8[np.ndarray, "n places patch patch c"]:
    """All patches of each image, row by row."""
    windows = sliding_window_view(images, (patch, patch), axis=(1, 2))[:, ::stride, ::stride]
    n, rows, columns = windows.shape[:3]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(
        n, rows * columns, patch, patch, -1
    )
