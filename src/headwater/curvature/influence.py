"""Influence functions: the inverse curvature of the training loss between a query's gradient and every training image's."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32

from headwater.core import Examples
from headwater.curvature.estimates import Factors, in_order_of_content, kfac_of
from headwater.curvature.factors import VARIANTS
from headwater.curvature.fisher import Fisher
from headwater.curvature.grid import Grid
from headwater.curvature.held import checked
from headwater.curvature.kfac import Curvature
from headwater.curvature.refined import Exact
from headwater.curvature.sides import Side, Streamed, refined, sides
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import canonical, measurement
from headwater.errors import OptionError, unknown
from headwater.features import VERSION, Gradients, Passes, check_fits, needed
from headwater.gradients.projected import projected
from headwater.linalg.project import Identity
from headwater.store import FeatureStore

Unit = tuple[float, bool]  # a damping, and whether it is absolute; the first says so for all


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model's curvature over its training images. `own`: self scores that came along with others, by draws and damping."""

    model: Denoiser
    train: Examples
    store: FeatureStore
    curvature: Curvature
    own: dict[tuple[Draws, bool, Unit], Float[np.ndarray, " n"]] = field(default_factory=dict)


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
        self._check_steps(model.schedule.T)
        return Fitted(model, train, store, self.curvature(model, train, store))

    def _check_steps(self, T: int) -> None:
        """Refuse timesteps that the schedule of T has not, before anything is computed."""
        named = {"timesteps": self.timesteps, "query_timesteps": self.query_timesteps}
        for name, steps in named.items():
            largest = steps if isinstance(steps, int) else 0 if steps is None else max(steps) + 1
            least = 0 if steps is None or isinstance(steps, int) else min(steps)
            if least < 0 or (largest > T and (not isinstance(steps, int) or self.strategy != "random")):
                raise OptionError(f"{name} is {steps}; the model's schedule has {T}: 0 … {T - 1}.")
        for name, count in (("curvature_timesteps", self.curvature_timesteps), ("refine_timesteps", self.refine_timesteps)):
            if count > T:
                raise OptionError(f"{name} is {count}; the model's schedule has only {T}.")

    def score(
        self,
        model: Denoiser | None,
        index: Fitted,
        queries: Examples,
        store: FeatureStore,
        damping: float | Sequence[float] | None = None,
    ) -> Iterator[Float[np.ndarray, "*λ q n"]]:
        several = isinstance(damping, Sequence)
        units = [self._unit(each) for each in damping] if several else [self._unit(damping)]
        if not units:
            raise OptionError("No damping is given; expected one or more.")
        check_fits(index.model, queries)
        keys = queries.path_keys if self.along_path else queries.keys
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        distinct = sorted(first)  # equal queries once, in an order of their own: found again however they come
        height = self._together(index)
        found = []
        for low in range(0, len(distinct), height):
            chosen = queries.take([first[key] for key in distinct[low : low + height]])
            found.append(self._rows(index, chosen, units, store))
        places = [distinct.index(key) for key in keys]
        values = np.concatenate(found, 1)[:, places]
        yield values if several else values[0]

    def self_scores(self, index: Fitted) -> Float[np.ndarray, " n"]:
        """Those of the training loss, with F as it is: `refine` is for queries alone."""
        unit = self._unit(None)
        key = self.draws(), self.normalize, unit
        if key not in index.own:
            self._rows(index, None, [unit], index.store)
        return index.own[key]

    def resolved(self, index: Fitted) -> dict[str, object]:
        value, absolute = self._unit(None)
        return {
            "absolute_damping" if absolute else "damping": value,
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

    def _unit(self, damping: float | None) -> Unit:
        """λ, where it is not a sequence: the one given, of the kind of the method's own; the method's own; the usual."""
        own = self.usual if self.absolute_damping is None else self.absolute_damping
        if self.damping is not None:
            own = self.damping
        return float(own if damping is None else damping), self.damping is None

    def _together(self, index: Fitted) -> int:
        """How many queries are held at once: as many as `model.memory` has room for."""
        numbers = index.curvature.p * (6 if self.refine else 1)  # conjugate gradients hold five vectors more
        return max(1, index.model.memory // (numbers * {"int8": 1, "int4": 0.5}.get(self.compression, 4)).__ceil__())

    def _rows(
        self, index: Fitted, queries: Examples | None, units: Sequence[Unit], store: FeatureStore
    ) -> Float[np.ndarray, "λ q n"]:
        """Scores of these queries, a row in the store for every training image; self scores come along."""
        settings = {
            "scores": canonical(self.measurement),
            "curvature": index.curvature.fingerprint,
            "queries": [] if queries is None else list(queries.path_keys if self.along_path else queries.keys),
            "query_draws": asdict(self.draws(query=True)),
            "draws": asdict(self.draws()),
            "dampings": units,
            "normalize": self.normalize,
            "compression": self.compression,
            "refine": [self.refine, self.refine_timesteps] if self.refine else None,
            "model": index.model.fingerprint,
            "version": VERSION,
        }

        def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
            given = self._sides(index, queries, units, store)
            chosen = index.train.take(positions)
            yield from Streamed(index.model, chosen, index.curvature, self.draws(), self.normalize, given).through(store)

        rows = store.rows(settings, index.train.keys, compute) / len(index.train)
        blocks = rows.T.reshape(len(units), -1, len(rows))
        index.own.update({(self.draws(), self.normalize, unit): own for unit, own in zip(units, blocks[:, -1], strict=True)})
        return blocks[:, :-1]

    def _sides(self, index: Fitted, queries: Examples | None, units: Sequence[Unit], store: FeatureStore) -> Sequence[Side | Grid]:
        """The queries' side of every damping."""
        curvature = index.curvature
        dampings, absolute = [value for value, _ in units], units[0][1]
        if queries is None:
            return sides(curvature, [], dampings, absolute=absolute)
        what, draws = measurement(self.measurement), self.draws(query=True)
        pattern = curvature.pattern
        each = projected(index.model, queries, what, draws, Identity(), pattern=pattern, normalize=self.normalize)
        if not self.refine:
            return sides(curvature, each, dampings, absolute=absolute, compression=self.compression)
        gradients = torch.cat(list(each))
        draws = Draws(self.refine_timesteps, "antithetic", seed=2 * self.seed)
        exact = Exact(index.model, in_order_of_content(index.train), draws, pattern)
        inverses = [curvature.inverse(damping, absolute=absolute) for damping in dampings]
        shifts = [curvature.shift(damping, absolute=absolute) for damping in dampings]
        solutions = [
            exact.solved(gradients, shift, lambda v, inverse=inverse: curvature.scaled(v, inverse), self.refine, store)
            for shift, inverse in zip(shifts, inverses, strict=True)
        ]
        return refined(curvature, solutions, inverses, self.compression)
