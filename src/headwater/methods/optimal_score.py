"""The optimal score of a finite training set: the posterior over whole images behind a noised picture (Gu et
al. 2023)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import softmax

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.schedule import early_noisy, linear
from headwater.disk.store import FeatureStore
from headwater.errors import check_at_least, unknown
from headwater.examples import SPACES, Examples
from headwater.families.fields import check_types
from headwater.families.pictures import count_of, query_views, views
from headwater.patches.noise import noised
from headwater.patches.views import Views


class ScoreIndex(NamedTuple):
    """The model, if any, the training images, and ᾱ of every timestep."""

    model: Denoiser | None
    train: Views
    alpha_bar: Float64[np.ndarray, " T"]


@dataclass(frozen=True, kw_only=True)
class OptimalScore:
    """τ(q, i) = mean_t softmax_i(−‖x_t − √ᾱ_t x_i‖²/(2σ_t²)),   x_t = √ᾱ_t x_q + σ_t ε,   σ_t² = 1 − ᾱ_t.

    The weights of training images in the score that a model of unlimited capacity would learn; pixels in [−1,
    1]. An integer K of `timesteps` stands for K timesteps evenly spaced over the first half of the schedule.
    `noises` ε are averaged (0: no noise); `flips`: training images count mirrored too. `space`: `pixels`, or
    the `latents` of the model's auto-encoder.

    Needs only the schedule of a model (without a model, a linear one). A model with this score could only
    repeat its training images: at low noise a single image has all the weight."""

    title: ClassVar[str] = "Optimal score"
    signed: ClassVar[bool] = False

    timesteps: int | tuple[int, ...] = 5
    noises: int = 1
    flips: bool = False
    space: str = "pixels"
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.space not in SPACES:
            raise unknown("space", self.space, SPACES)
        count_of(self.timesteps)  # raises on none
        check_at_least(0, self, "noises")

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> ScoreIndex:
        schedule = linear() if model is None else model.schedule
        images = views(model, train, self.space, store, mirrored=self.flips)
        index = ScoreIndex(model, images, schedule.alpha_bar)
        early_noisy(self.timesteps, index.alpha_bar)
        return index

    def score(
        self, index: ScoreIndex, queries: Examples, store: FeatureStore
    ) -> Iterator[Float32[np.ndarray, "q n"]]:
        pictures = query_views(index.model, queries, self.space, store, index.train)
        n, orientations = len(index.train), (False, True)[: 1 + self.flips]
        train = [
            index.train.part(mirrored=mirrored).reshape(n, -1).astype(np.float64) for mirrored in orientations
        ]
        steps = early_noisy(self.timesteps, index.alpha_bar)
        means = np.zeros((len(pictures), n))
        for t in steps:
            means += self._weights(pictures, t, float(index.alpha_bar[t]), train) / len(steps)
        yield means.astype(np.float32)

    def self_scores(self, index: ScoreIndex) -> Float32[np.ndarray, " n"]:
        """Unknown: they would need every training image as a query."""
        return np.full(len(index.train), np.nan, np.float32)

    def resolved(self, index: ScoreIndex) -> dict[str, object]:
        return {"steps": list(early_noisy(self.timesteps, index.alpha_bar))}

    def _weights(
        self, queries: Views, t: int, alpha_bar: float, train: list[Float64[np.ndarray, "n d"]]
    ) -> Float64[np.ndarray, "q n"]:
        """The posterior over training images, averaged over noises."""
        halves = [np.einsum("nd,nd->n", images, images) / 2 for images in train]
        means = np.zeros((len(queries), len(train[0])))
        pictures = zip(queries.part(), queries.hashes, strict=True)
        forms = [noised(x, content, t, alpha_bar, self.noises, self.seed) for x, content in pictures]
        for noised_queries in zip(*forms, strict=True):  # one noise for every query
            _, signal, variance = noised_queries[0]
            x_t = np.array([noisy.x_t.ravel() for noisy in noised_queries], np.float64)
            logits = [
                (signal * x_t @ images.T - np.square(signal) * half) / variance
                for images, half in zip(train, halves, strict=True)
            ]
            means += softmax(np.logaddexp.reduce(logits), axis=1) / max(1, self.noises)
        return means
