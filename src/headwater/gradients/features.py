"""Features: projected gradients of a measurement, φ(x) = R ∇_θ m(x), one row per example, through the store."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import AnyDraws, Draws, Journey
from headwater.diffusion.measure import canonical, measurement
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients.forward import values
from headwater.gradients.projected import BLOCK, projected
from headwater.linalg.project import AnyProjector
from headwater.workers import in_order

Features = Float32[np.ndarray, "n k"]
VERSION = 2  # of the numbers that given settings stand for


def features(
    model: Denoiser | None,
    examples: Examples,
    measurement_name: str,
    draws: AnyDraws,
    project: AnyProjector,
    store: FeatureStore,
    pattern: str = "*",
    normalize: bool = False,
) -> Features:
    """φ(x) = R ∇_θ m(x) for all examples, from the store or computed: p numbers an example are never kept, only k."""
    model = require_model(model)
    model.check(examples)
    settings = {
        "model": model.fingerprint,
        "measurement": canonical(measurement_name),
        "draws": asdict(draws),
        "projector": {"name": type(project).__name__, **asdict(project)},
        "parameters": pattern,
        "normalize": normalize,
        "dtype": str(model.dtype),
        "version": VERSION,
    }

    def compute(positions: list[int]) -> Iterator[Features]:
        what = Wanted(model, examples.take(positions), measurement_name, draws, project, pattern, normalize)
        if store.crew is None:
            yield from what.blocks(slice(None))
        else:
            parts = [slice(low, low + BLOCK) for low in range(0, len(positions), BLOCK)]
            yield from in_order(store.crew.work(_block, what, parts), parts)

    along = measurement_name == "trajectory" or isinstance(draws, Journey)
    return store.rows(settings, examples.path_keys if along else examples.keys, compute)


def losses(model: Denoiser | None, examples: Examples, draws: Draws, store: FeatureStore) -> Float32[np.ndarray, "n d"]:
    """The training loss of every draw of each example, from the store or computed: forward passes alone."""
    model = require_model(model)
    model.check(examples)
    settings = {"model": model.fingerprint, "losses": asdict(draws), "dtype": str(model.dtype), "version": VERSION}

    def compute(positions: list[int]) -> Iterator[Features]:
        yield from (part.of["simple"] for part in values(model, examples.take(positions), ["simple"], draws))

    return store.rows(settings, examples.keys, compute)


class Wanted(NamedTuple):
    """The rows wanted: which gradient of which examples, projected how."""

    model: Denoiser
    examples: Examples
    measurement: str
    draws: AnyDraws
    project: AnyProjector
    pattern: str
    normalize: bool

    def blocks(self, rows: slice) -> Iterator[Features]:
        """The features of the examples at `rows`, block by block."""
        chosen = self.examples.take(np.arange(len(self.examples))[rows])
        what = measurement(self.measurement)
        found = projected(self.model, chosen, what, self.draws, self.project, pattern=self.pattern, normalize=self.normalize)
        yield from (block.float().cpu().numpy() for block in found)


def _block(what: Wanted, rows: slice) -> Features:
    return np.concatenate(list(what.blocks(rows)))
