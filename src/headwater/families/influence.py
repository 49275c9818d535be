"""Influence functions: the inverse curvature of the training loss between a query's gradient and every training image's."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32

from headwater.curvature.compression import checked
from headwater.curvature.dampings import Grid
from headwater.curvature.factors import VARIANTS
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import Curvature
from headwater.curvature.products import Side, Streamed, refined, sides
from headwater.curvature.refinement import Exact
from headwater.curvature.stored import Factors, in_order_of_content, kfac_of
from headwater.diffusion.denoiser import Denoiser, check_fits, needed
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import canonical
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, unknown
from headwater.examples import Examples
from headwater.families.gradients import Gradients, Passes
from headwater.gradients.features import VERSION
from headwater.gradients.projected import projected
from headwater.linalg.project import Identity


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model's curvature over its training images. `own`: self scores that came along with others, by draws and damping."""

    model: Denoiser
    train: Examples
    store: FeatureStore
    curvature: Curvature
    own: dict[tuple[Draws, bool, float, bool], Float[np.ndarray, " n"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Influence(Gradients):
    """τ(q, i) = (1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i),   F a curvature of the mean training loss, m any measurement, ℓ the loss.

    λ is `absolute_damping`, or `damping` × each block's mean eigenvalue. F is estimated over `curvature_timesteps` draws of every
    training image (see `Fisher` for `fisher` and `average`, `factors` for `variant` and `joint`). Queries' gradients are held as
    `compression` says; `refine` steps of conjugate gradients on the exact Gauss–Newton matrix of `refine_timesteps` fixed draws of
    every training image improve them first.
    """

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
        if self.damping is not None and self.absolute_damping is not None:
            raise OptionError(
                f"Both damping ({self.damping}) and absolute_damping ({self.absolute_damping}) are given; expected one: "
                "damping is a multiple of each block's mean eigenvalue, absolute_damping is λ itself."
            )
        for name in ("damping", "absolute_damping"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= np.finfo(np.float64).max:
                raise OptionError(f"{name} is {value}; expected a finite number above 0.")
        if self.refine < 0:
            raise OptionError(f"refine is {self.refine}; expected 0 or more steps of conjugate gradients.")
        if self.variant not in VARIANTS:
            raise unknown("K-FAC variant", self.variant, VARIANTS)
        for name in ("curvature_timesteps", "refine_timesteps"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        checked(self.compression)
        self.outer_products(0)

    def check_schedule(self, T: int) -> None:
        super().check_schedule(T)
        self.outer_products(0).draws.check(T, "curvature_timesteps")
        self.exact_draws.check(T, "refine_timesteps")

    @property
    def exact_draws(self) -> Draws:
        """Those of the Gauss–Newton matrix that `refine` is for."""
        return Draws(self.refine_timesteps, "antithetic", seed=2 * self.seed)

    def outer_products(self, times: int) -> Fisher:
        """What F is the mean of. Eigenvectors and the eigenvalues that correct them are estimated from draws of their own."""
        seed = 2 * self.seed + times
        draws = Draws(self.curvature_timesteps, "antithetic", seed=seed)
        return Fisher(draws=draws, kind=self.fisher, average=self.average, seed=seed)

    def curvature(self, model: Denoiser, train: Examples, store: FeatureStore) -> Curvature:
        """F, through the store."""
        ordered = in_order_of_content(train)
        factors = Factors(model, ordered, self.outer_products(0), self.variant, self.joint, self.parameters)
        return kfac_of(factors, store)

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Fitted:
        model = needed(model)
        check_fits(model, train)
        self.check_schedule(model.schedule.T)
        return Fitted(model, train, store, self.curvature(model, train, store))

    def score(
        self,
        model: Denoiser | None,
        index: Fitted,
        queries: Examples,
        store: FeatureStore,
        damping: float | Sequence[float] | None = None,
    ) -> Iterator[Float[np.ndarray, "*λ q n"]]:
        several = isinstance(damping, Sequence)
        dampings = [float(each) for each in damping] if several else [self._own_damping if damping is None else float(damping)]
        if not dampings:
            raise OptionError("No damping is given; expected one or more.")
        check_fits(index.model, queries)
        keys = queries.path_keys if self.along_path else queries.keys
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        distinct = sorted(first)  # equal queries once, in an order of their own: found again however they come
        place = {key: row for row, key in enumerate(distinct)}
        height = self._together(index.curvature.p, index.model.memory)
        found = []
        for low in range(0, len(distinct), height):
            chosen = queries.take([first[key] for key in distinct[low : low + height]])
            found.append(self._rows(index, chosen, dampings, store))
        values = np.concatenate(found, 1)[:, [place[key] for key in keys]]
        yield values if several else values[0]

    def self_scores(self, index: Fitted) -> Float[np.ndarray, " n"]:
        """Those of the training loss, with F as it is: `refine` is for queries alone."""
        key = self._own_key(self._own_damping)
        if key not in index.own:
            self._rows(index, None, [self._own_damping], index.store)
        return index.own[key]

    def resolved(self, index: Fitted) -> dict[str, object]:
        return {
            "absolute_damping" if self.absolute else "damping": self._own_damping,
            "parameters_with_curvature": index.curvature.p,
            "parameters_left_out": len(index.curvature.left_out),
            "layers_without_curvature": list(index.curvature.dead),
        }

    def passes(self, T: int) -> Passes:
        """Those of the gradients, and a training image's share of F."""
        each = super().passes(T)
        return each._replace(train=each.train + self.curvature_timesteps)

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """Bytes in the store: sums in float64, eigenvectors in float32, eigenvalues, and scores."""
        return 12 * factors + 8 * parameters + 4 * n * (q + 1)

    @property
    def absolute(self) -> bool:
        """Whether dampings are λ themselves, and not multiples of each block's mean eigenvalue."""
        return self.damping is None

    @property
    def _own_damping(self) -> float:
        if self.damping is not None:
            return float(self.damping)
        return float(self.usual if self.absolute_damping is None else self.absolute_damping)

    def _own_key(self, damping: float) -> tuple[Draws, bool, float, bool]:
        """All that self scores depend on, of one curvature."""
        return self.draws(), self.normalize, damping, self.absolute

    def streams(self, q: int, parameters: int, memory: int) -> int:
        """Once for as many queries as `memory` holds."""
        return ceil(q / self._together(parameters, memory))

    def _together(self, parameters: int, memory: int) -> int:
        """How many queries are held at once."""
        if self.refine:
            each = 6 * 4 * parameters  # conjugate gradients hold five vectors more, all in float32
        else:
            each = ceil(parameters * {"int8": 1, "int4": 0.5}.get(self.compression, 4))
        return max(1, memory // each)

    def _rows(
        self, index: Fitted, queries: Examples | None, dampings: Sequence[float], store: FeatureStore
    ) -> Float[np.ndarray, "λ q n"]:
        """Scores of these queries, a row in the store for every training image; self scores come along."""
        settings = {
            "scores": canonical(self.measurement),
            "curvature": index.curvature.fingerprint,
            "queries": [] if queries is None else list(queries.path_keys if self.along_path else queries.keys),
            "query_draws": asdict(self.draws(query=True)),
            "draws": asdict(self.draws()),
            "dampings": [[damping, self.absolute] for damping in dampings],
            "normalize": self.normalize,
            "compression": self.compression,
            "refine": [self.refine, self.refine_timesteps] if self.refine else None,
            "model": index.model.fingerprint,
            "version": VERSION,
        }

        def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
            given = self._sides(index, queries, dampings, store)
            chosen = index.train.take(positions)
            yield from Streamed(index.model, chosen, index.curvature, self.draws(), self.normalize, given).through(store)

        rows = store.rows(settings, index.train.keys, compute) / len(index.train)
        blocks = rows.T.reshape(len(dampings), -1, len(rows))
        index.own.update({self._own_key(damping): own for damping, own in zip(dampings, blocks[:, -1], strict=True)})
        return blocks[:, :-1]

    def _sides(
        self, index: Fitted, queries: Examples | None, dampings: Sequence[float], store: FeatureStore
    ) -> Sequence[Side | Grid]:
        """The queries' side of every damping."""
        curvature = index.curvature
        if queries is None:
            return sides(curvature, [], dampings, absolute=self.absolute)
        spec = replace(self.spec(query=True), pattern=curvature.pattern)
        each = projected(index.model, queries, spec, Identity())
        if not self.refine:
            return sides(curvature, each, dampings, absolute=self.absolute, compression=self.compression)
        gradients = torch.cat(list(each))
        exact = Exact(index.model, in_order_of_content(index.train), self.exact_draws, curvature.pattern)
        found = []
        for damping in dampings:
            inverse, shift = (of(damping, absolute=self.absolute) for of in (curvature.inverse, curvature.shift))
            x = exact.solved(gradients, shift, lambda v, inverse=inverse: curvature.scaled(v, inverse), self.refine, store)
            found.append(refined(curvature, x, inverse, self.compression))
        return found
