"""Influence functions: the inverse curvature of the training loss between a query's gradient and every
training image's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32

from headwater.curvature.compression import rank_of
from headwater.curvature.dampings import DampingGrid
from headwater.curvature.factors import VARIANTS
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import Curvature
from headwater.curvature.products import Side, Streamed, query_sides, refined_side
from headwater.curvature.refinement import ExactSolver
from headwater.curvature.rounding import MOST, ROWS, decided_by_rounding
from headwater.curvature.stored import PART, Factors, in_order_of_content, kfac_of
from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import canonical
from headwater.disk.store import FeatureStore, unheard
from headwater.errors import OptionError, check_at_least, unknown
from headwater.examples import Examples
from headwater.families.gradients import Gradients, Passes
from headwater.gradients.features import VERSION
from headwater.gradients.projected import projected
from headwater.linalg.damping import Damping, check_dampings, damping_of
from headwater.linalg.project import Identity

SelfKey = tuple[Draws, bool, Damping]


@dataclass(frozen=True, eq=False)
class InfluenceIndex:
    """A model's curvature over its training images, and the self scores computed so far."""

    model: Denoiser
    train: Examples
    store: FeatureStore
    curvature: Curvature
    self_scores: dict[SelfKey, Float[np.ndarray, " n"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Influence(Gradients):
    """τ(q, i) = (1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i),   F a curvature of the mean training loss, m any measurement,
    ℓ the loss.

    λ is `absolute_damping`, or `damping` × each block's mean eigenvalue. F is estimated over
    `curvature_timesteps` draws of every training image (see `Fisher` for `fisher` and `average`, `factors`
    for `variant` and `joint`). `compression`: the format in which queries' gradients are held. `refine`:
    steps of conjugate gradients that first improve them, on the exact Gauss–Newton matrix of
    `refine_timesteps` fixed draws of every training image."""

    signed: ClassVar[bool] = True
    usual: ClassVar[float] = 1e-8  # the paper's λ

    fisher: str = "model"
    average: bool = False
    variant: str = "expand"
    joint: bool = False
    curvature_timesteps: int = 10
    damping: float | None = None
    absolute_damping: float | None = None
    compression: str = "float32"
    refine: int = 0
    refine_timesteps: int = 2

    def __post_init__(self) -> None:
        self.check_gradient()
        if self.own_damping.value <= 0:
            raise OptionError(
                f"{self.own_damping.field} is {self.own_damping.value}; expected a finite number above 0."
            )
        if self.refine < 0:
            raise OptionError(f"refine is {self.refine}; expected 0 or more steps of conjugate gradients.")
        if self.variant not in VARIANTS:
            raise unknown("K-FAC variant", self.variant, VARIANTS)
        check_at_least(1, self, "curvature_timesteps", "refine_timesteps")
        rank_of(self.compression)  # raises on an unknown compression
        self.outer_products(0)

    def check_schedule(self, T: int) -> None:
        super().check_schedule(T)
        self.outer_products(0).draws.check(T, "curvature_timesteps")
        self.exact_draws.check(T, "refine_timesteps")

    @property
    def exact_draws(self) -> Draws:
        """The draws of the Gauss–Newton matrix for `refine`."""
        return Draws(self.refine_timesteps, "antithetic", seed=2 * self.seed)

    def outer_products(self, stage: int) -> Fisher:
        """The outer products with mean F: eigenvectors (stage 0) and corrected eigenvalues (1) use different
        draws."""
        seed = 2 * self.seed + stage
        draws = Draws(self.curvature_timesteps, "antithetic", seed=seed)
        return Fisher(draws=draws, kind=self.fisher, average=self.average, seed=seed)

    def curvature(self, model: Denoiser, train: Examples, store: FeatureStore) -> Curvature:
        """F, through the store."""
        factors = Factors(
            model,
            in_order_of_content(train),
            self.outer_products(0),
            self.variant,
            self.joint,
            self.parameters,
            store.rows_together(PART),
        )
        return kfac_of(factors, store)

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> InfluenceIndex:
        model = require_model(model)
        model.check(train)
        self.check_schedule(model.schedule.T)
        return InfluenceIndex(model, train, store, self.curvature(model, train, store))

    def score(
        self, index: InfluenceIndex, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q n"]]:
        return (block[0] for block in self.scores_at(index, queries, [self.own_damping], store))

    def scores_at(
        self, index: InfluenceIndex, queries: Examples, dampings: Sequence[Damping], store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "λ q n"]]:
        """Scores at each damping, from one stream of the training images' gradients."""
        check_dampings(dampings)
        index.model.check(queries)
        keys = queries.path_keys if self.along_path else queries.keys
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        distinct = sorted(first)  # equal queries once, in a fixed order: stored scores hit in any order
        place = {key: row for row, key in enumerate(distinct)}
        height = self._together(index.curvature.p, index.model.memory)
        blocks = []
        for low in range(0, len(distinct), height):
            chosen = queries.take([first[key] for key in distinct[low : low + height]])
            blocks.append(self._rows(index, chosen, dampings, store))
        yield np.concatenate(blocks, 1)[:, [place[key] for key in keys]]

    def self_scores(self, index: InfluenceIndex) -> Float[np.ndarray, " n"]:
        """Self scores of the training loss, with F itself: `refine` improves only queries."""
        key = self._self_key(self.own_damping)
        if key not in index.self_scores:
            self._rows(index, None, [self.own_damping], index.store)
        return index.self_scores[key]

    def resolved(self, index: InfluenceIndex) -> dict[str, object]:
        return {
            self.own_damping.field: self.own_damping.value,
            "parameters_with_curvature": index.curvature.p,
            "parameters_left_out": len(index.curvature.left_out),
            "layers_without_curvature": list(index.curvature.dead),
        }

    def passes(self, T: int) -> Passes:
        """Passes for the gradients, and for a training image's share of F."""
        gradients = super().passes(T)
        return gradients._replace(train=gradients.train + self.curvature_timesteps)

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """Bytes in the store: sums in float64, eigenvectors in float32, eigenvalues, and scores."""
        return 12 * factors + 8 * parameters + 4 * n * (q + 1)

    @property
    def own_damping(self) -> Damping:
        """The damping in the fields."""
        return damping_of(self.damping, self.absolute_damping, Damping(self.usual, absolute=True))

    def _self_key(self, damping: Damping) -> SelfKey:
        """Everything that self scores depend on besides the curvature."""
        return self.draws(), self.normalize, damping

    def streams(self, q: int, parameters: int, memory: int) -> int:
        """One stream for as many queries as `memory` holds."""
        return ceil(q / self._together(parameters, memory))

    def _together(self, parameters: int, memory: int) -> int:
        """The number of queries held at a time."""
        if self.refine:
            size = 6 * 4 * parameters  # conjugate gradients hold five more vectors, all in float32
        else:
            size = ceil(parameters * {"int8": 1, "int4": 0.5}.get(self.compression, 4))
        return max(1, memory // size)

    def _rows(
        self,
        index: InfluenceIndex,
        queries: Examples | None,
        dampings: Sequence[Damping],
        store: FeatureStore,
    ) -> Float[np.ndarray, "λ q n"]:
        """Scores of these queries and self scores, stored as a row for every training image."""

        def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
            sides, chosen = self._sides(index, queries, dampings, store), index.train.take(positions)
            streamed = Streamed(index.model, chosen, index.curvature, self.draws(), self.normalize, sides)
            yield from streamed.through(store)

        settings = self._settings(index, queries, dampings)
        rows = store.rows(settings, index.train.keys, compute) / len(index.train)
        if queries is not None:
            self._warn_of_rounding(index, queries, dampings, settings, store)
        blocks = rows.T.reshape(len(dampings), -1, len(rows))
        keys = [self._self_key(damping) for damping in dampings]
        index.self_scores.update(zip(keys, blocks[:, -1], strict=True))
        return blocks[:, :-1]

    def _settings(
        self, index: InfluenceIndex, queries: Examples | None, dampings: Sequence[Damping]
    ) -> dict[str, object]:
        """Everything that the rows of these queries depend on besides the training images."""
        keys = () if queries is None else queries.path_keys if self.along_path else queries.keys
        return {
            "scores": canonical(self.measurement),
            "curvature": index.curvature.fingerprint,
            "queries": list(keys),
            "query_draws": self.draws(query=True).manifest(),
            "draws": self.draws().manifest(),
            "dampings": [[float(damping.value), damping.absolute] for damping in dampings],
            "normalize": self.normalize,
            "compression": self.compression,
            "refine": [self.refine, self.refine_timesteps] if self.refine else None,
            "model": index.model.fingerprint,
            "version": VERSION,
        }

    def _warn_of_rounding(
        self,
        index: InfluenceIndex,
        queries: Examples,
        dampings: Sequence[Damping],
        settings: Mapping[str, object],
        store: FeatureStore,
    ) -> None:
        """Warn where the least damping leaves much of the scores to rounding. The share is stored with the
        scores, so that a run that finds them hears of it too."""
        least = min(dampings, key=lambda damping: damping.value)

        def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "1 1"]]:
            first = torch.cat(list(self._gradients(index, queries.take(range(min(ROWS, len(queries)))))))
            yield np.array([[decided_by_rounding(index.curvature, first, least)]], np.float32)

        plain = replace(store, dtype="float32", progress=unheard)
        share = float(plain.rows({**settings, "what": "rounding"}, ["queries"], compute)[0, 0])
        if share > MOST:  # in the same words for every model
            store.warn(
                f"Rounding decides more than {MOST:.0%} of the queries' own influence with {least.field} "
                f"{least.value:g}: these training images give the curvature few directions, and scores "
                "differ between machines and numbers of threads. Use a larger damping, such as damping 0.1, "
                "more curvature_timesteps or more images."
            )

    def _gradients(self, index: InfluenceIndex, queries: Examples) -> Iterator[Float[torch.Tensor, "b p"]]:
        spec = replace(self.spec(query=True), pattern=index.curvature.pattern)
        return projected(index.model, queries, spec, Identity())

    def _sides(
        self,
        index: InfluenceIndex,
        queries: Examples | None,
        dampings: Sequence[Damping],
        store: FeatureStore,
    ) -> Sequence[Side | DampingGrid]:
        """The queries' side at every damping."""
        curvature = index.curvature
        if queries is None:
            return query_sides(curvature, [], dampings)
        blocks = self._gradients(index, queries)
        if self.refine:
            return self._refined_sides(index, torch.cat(list(blocks)), dampings, store)
        return query_sides(curvature, blocks, dampings, compression=self.compression)

    def _refined_sides(
        self,
        index: InfluenceIndex,
        gradients: Float[torch.Tensor, "q p"],
        dampings: Sequence[Damping],
        store: FeatureStore,
    ) -> list[Side]:
        """The queries' side at every damping, by conjugate gradients with the exact matrix."""
        curvature, train = index.curvature, in_order_of_content(index.train)
        exact = ExactSolver(index.model, train, self.exact_draws, curvature.pattern)
        sides = []
        for damping in dampings:
            inverse, shift = curvature.inverse(damping), curvature.shift(damping)
            precondition = partial(curvature.scaled, scale=inverse)
            x = exact.solved(gradients, shift, precondition, self.refine, store)
            sides.append(refined_side(curvature, x, inverse, self.compression))
        return sides
