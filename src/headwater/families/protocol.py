"""The protocol of every attribution method, and the optional powers of some. Code asks for a power with
`isinstance`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.gradients import Passes
from headwater.linalg.damping import Damping
from headwater.patches.regions import Regions


@runtime_checkable
class Method(Protocol):
    """Two pure verbs, the diagonal of their scores, and the method's title on pages.

    `fit` is the expensive part and needs no query; its index knows the model. `score` yields blocks `[query,
    train]` over consecutive training images. `self_scores` is τ[i, i] of the training images, NaN if unknown.
    `resolved` gives the values that the fields led to: the real width, λ itself. `signed` is
    False for similarities, whose lowest scores are no opponents."""

    title: ClassVar[str]
    signed: ClassVar[bool]

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Any: ...

    def score(
        self, index: Any, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q b"]]: ...

    def self_scores(self, index: Any) -> Float[np.ndarray, " n"]: ...

    def resolved(self, index: Any) -> Mapping[str, Any]: ...


@runtime_checkable
class Damped(Method, Protocol):
    """A method with a damping: scores at several dampings, all relative or all absolute, from one fit."""

    def scores_at(
        self, index: Any, queries: Examples, dampings: Sequence[Damping], store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "λ q b"]]: ...


@runtime_checkable
class Mapped(Method, Protocol):
    """A method that locates each training image's share within a query: maps of the queries at `rows`."""

    def regions(self, index: Any, queries: Examples, store: FeatureStore, rows: Sequence[int]) -> Regions: ...


@runtime_checkable
class PathBound(Method, Protocol):
    """A method that needs the sampler's path of each query if `along_path` is true."""

    measurement: str

    @property
    def along_path(self) -> bool: ...


@runtime_checkable
class Staged(Method, Protocol):
    """A method that uses a model at several `checkpoints` of its training."""

    checkpoints: int


@runtime_checkable
class Costed(Method, Protocol):
    """A method with a predictable cost: passes through the model, streams of training gradients, bytes in the
    store."""

    def passes(self, T: int) -> Passes: ...

    def streams(self, q: int, parameters: int, memory: int) -> int: ...

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int: ...


@runtime_checkable
class Embedding(Method, Protocol):
    """A method that compares embeddings. `fingerprint` identifies its embedder; None if the embedder has
    none."""

    @property
    def fingerprint(self) -> str | None: ...
