"""NDA: nonparametric data attribution, from the images alone (Zhao et al. 2025, arXiv:2510.14269)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.schedule import early_noisy, linear
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, check_at_least, unknown
from headwater.examples import SPACES, Examples
from headwater.families.fields import check_types
from headwater.families.pictures import count_of, query_views, views
from headwater.patches.answers import Step, StepInputs, rows
from headwater.patches.growing import growing_rows
from headwater.patches.maps import Level, regions
from headwater.patches.posterior import CPU
from headwater.patches.regions import Regions
from headwater.patches.views import Views

VERSION = 4  # of the numbers behind equal settings

Sizes = int | tuple[int, ...] | None


class PatchIndex(NamedTuple):
    """The model, if any; training images sorted by content, and each image's place in that order; ᾱ of every
    timestep."""

    model: Denoiser | None
    train: Views
    places: Int64[np.ndarray, " n"]
    alpha_bar: Float64[np.ndarray, " T"]
    memory: int


@dataclass(frozen=True, kw_only=True)
class NDA:
    """τ(q, i) = mean_t Σ_a Σ_{b ∈ top-k of i} softmax_b(−‖x_t[a] − √ᾱ_t y[b]‖²/(2σ_t²)),   σ_t² = 1 − ᾱ_t.

    a are the patches of the noised query x_t = √ᾱ_t x + σ_t ε, b the patches of all training images y, with
    pixels in [−1, 1]; the `topk` heaviest patches of each image count. `patches`: the patch size at each
    timestep; `low_patches`: the size in a second softmax, over patches at half the resolution, ½ Σ of each
    2×2 cell; `alpha` mixes α·original + (1−α)·low. Default sizes depend on the picture's side and t. An
    integer K of `timesteps` stands for K timesteps evenly spaced over the first half of the schedule.
    `noises` ε are averaged (0: no noise); `shared_noise`: the same ε for all queries, as in the paper;
    `flips`: training images count mirrored too. `growing`: also store the weight of every patch (about 1 MB
    per 256 images of 32×32, per query and step). When training images are appended, only they and the last
    incomplete block are compared. `space`: x and y are `pixels`, or the `latents` of the model's
    auto-encoder.

    Needs only the schedule of a model (without a model, a linear one). Scores are never negative: the lowest
    is least similar. It measures what training images can explain, not what this model learned from them."""

    title: ClassVar[str] = "NDA"
    signed: ClassVar[bool] = False

    timesteps: int | tuple[int, ...] = 5
    patches: Sizes = None
    low_patches: Sizes = None
    alpha: float | tuple[float, ...] = 0.5
    topk: int = 100
    noises: int = 1
    shared_noise: bool = False
    flips: bool = False
    space: str = "pixels"
    growing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.space not in SPACES:
            raise unknown("space", self.space, SPACES)
        count = count_of(self.timesteps)
        check_at_least(1, self, "topk")
        check_at_least(0, self, "noises")
        for name in ("patches", "low_patches", "alpha"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != count:
                raise OptionError(
                    f"{name} has {len(values)} values for {count} timesteps; expected one each, or one for "
                    "all."
                )
        self._check_ranges()

    def _check_ranges(self) -> None:
        """Raise an OptionError for a patch size or an α that is out of range."""
        for size in _listed(self.patches):
            if size < 1 or size % 2 == 0:
                raise OptionError(
                    f"patches has {size}; expected odd sizes, such as 7: a patch has a pixel in its middle."
                )
        for size in _listed(self.low_patches):
            if size < 1 or size % 2 == 1:
                raise OptionError(
                    f"low_patches has {size}; expected even sizes, such as 14: it has cells of 2×2 pixels."
                )
        for alpha in _listed(self.alpha):
            if not 0 <= alpha <= 1:
                raise OptionError(
                    f"alpha is {alpha}; expected 0 (low resolution alone) to 1 (the original alone)."
                )

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> PatchIndex:
        schedule = linear() if model is None else model.schedule
        images = views(model, train, self.space, store, mirrored=self.flips)
        order = np.argsort(np.array(images.hashes), kind="stable")
        index = PatchIndex(model, images.take(order), np.argsort(order), schedule.alpha_bar, store.memory)
        self.steps(index)
        return index

    def score(
        self, index: PatchIndex, queries: Examples, store: FeatureStore
    ) -> Iterator[Float32[np.ndarray, "q n"]]:
        pictures = query_views(index.model, queries, self.space, store, index.train)
        values = np.zeros((len(pictures), len(index.train)))
        for step, weight in self.steps(index):
            values += weight * self._rows(step, pictures, index=index, store=store)[:, : len(index.train)]
        yield values[:, index.places].astype(np.float32)

    def regions(
        self, index: PatchIndex, queries: Examples, store: FeatureStore, rows: Sequence[int]
    ) -> Regions:
        """Maps of the queries at `rows`: the parts that their leading training images explain, and with which
        patches."""
        pictures = views(index.model, queries.take(rows), self.space, store)
        levels = [Level(step, weight, float(index.alpha_bar[step.t])) for step, weight in self.steps(index)]
        maps = regions(levels, partial(self._rows, index=index, store=store), index.train, pictures, store)
        return replace(maps, queries=np.array(rows), images=np.argsort(index.places)[maps.images])

    def self_scores(self, index: PatchIndex) -> Float[np.ndarray, " n"]:
        """Unknown: they would need every training image as a query."""
        return np.full(len(index.train), np.nan, np.float32)

    def resolved(self, index: PatchIndex) -> dict[str, object]:
        steps = [(step, weight) for step, weight in self.steps(index)]
        return {
            "steps": list(dict.fromkeys(step.t for step, _ in steps)),
            "patches_used": [step.size for step, _ in steps if not step.coarse],
            "low_patches_used": [step.size for step, _ in steps if step.coarse],
        }

    def steps(self, index: PatchIndex) -> list[tuple[Step, float]]:
        """The steps to average and their weights: each timestep at each resolution with a weight above 0."""
        times = early_noisy(self.timesteps, index.alpha_bar)
        steps = []
        for i, t in enumerate(times):
            alpha = _of(self.alpha, i)
            for coarse, weight in ((False, alpha), (True, 1 - alpha)):
                if weight > 0:
                    size = self._size(index, i, t, coarse)
                    step = Step(
                        t, size, coarse, self.topk, self.noises, self.shared_noise, self.flips, self.seed
                    )
                    step.comparison(index.memory).check_room(*index.train.shape[1:])
                    steps.append((step, weight / len(times)))
        return steps

    def _size(self, index: PatchIndex, i: int, t: int, coarse: bool) -> int:
        """The patch size at t, timestep i, or the usual one; one larger than the images is an OptionError."""
        name, side = "low_patches" if coarse else "patches", min(index.train.shape[1:])
        size = _of(getattr(self, name), i) or usual(side, index.alpha_bar[t], coarse=coarse)
        if size > side:
            largest = side - (side + 1 - coarse) % 2
            raise OptionError(
                f"{name} has {size}; the images have {side} pixels. Expected at most {largest}."
            )
        return size

    def _rows(
        self, step: Step, queries: Views, *, index: PatchIndex, store: FeatureStore
    ) -> Float32[np.ndarray, "q _"]:
        """One step's results, stored as a row of `pack_explained` for every query: n scores, then the numbers
        for maps."""
        alpha_bar = float(index.alpha_bar[step.t])
        settings = {"nda": asdict(step), "alpha_bar": alpha_bar}
        settings |= {"train": index.train.fingerprint, "version": VERSION}

        def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
            device = CPU if index.model is None else index.model.device
            inputs = StepInputs(step, alpha_bar, index.train, queries.take(positions), index.memory, device)
            if self.growing:
                return growing_rows(inputs, index.places, settings, store)
            return rows(inputs, store)

        return replace(store, dtype="float32").rows(settings, queries.hashes, compute)


def usual(side: int, alpha_bar: float, *, coarse: bool) -> int:
    """The default patch size for a picture's side and noise, chosen on validation queries of banks of 8 and
    16 pixels.

    5 pixels without noise, 11 at full noise, growing as √side beyond a side of 16.
    """
    size = (5 + 6.5 * (1 - alpha_bar)) * max(1, side / 16) ** 0.5
    if coarse:
        return max(2, min(2 * round(size / 2), side // 2 * 2))
    return min(int(size) // 2 * 2 + 1, (side + 1) // 2 * 2 - 1)


def _listed(values: Sizes | float | tuple[float, ...]) -> tuple[Any, ...]:
    return () if values is None else values if isinstance(values, tuple) else (values,)


def _of(values: Any, i: int) -> Any:
    """The value for timestep i, from a value for each timestep or one for all."""
    return values[i] if isinstance(values, tuple) else values
