"""Features: projected gradients of a measurement, φ(x) = R ∇_θ m(x), one row per example, through the
store."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import canonical
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients.forward import values
from headwater.gradients.projected import BLOCK, power_of_two, projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import AnyProjector
from headwater.workers import in_order

Features = Float32[np.ndarray, "n k"]
VERSION = 2  # of the numbers that the same settings stand for


def features(
    model: Denoiser | None,
    examples: Examples,
    spec: GradientSpec,
    projector: AnyProjector,
    store: FeatureStore,
) -> Features:
    """φ(x) = R ∇_θ m(x) for all examples, from the store or computed. Only k numbers an example are ever
    stored, not p."""
    model = require_model(model)
    model.check(examples)
    settings = {
        "model": model.fingerprint,
        "measurement": canonical(spec.measurement),
        "draws": spec.draws.manifest(),
        "projector": {"name": type(projector).__name__, **asdict(projector)},
        "parameters": spec.pattern,
        "normalize": "before projecting" if spec.normalize else False,
        "dtype": str(model.dtype),
        "version": VERSION,
    }

    def compute(positions: list[int]) -> Iterator[Features]:
        rows = FeatureRows(model.alone(), examples.take(positions), spec, projector)
        block = power_of_two(store.rows_together(BLOCK))
        if store.crew is None:
            yield from rows.blocks(slice(None), block)
        else:
            parts = [slice(low, low + block) for low in range(0, len(positions), block)]
            yield from in_order(store.crew.work(_block, rows, parts), parts)

    return store.rows(settings, examples.path_keys if spec.along_path else examples.keys, compute)


def losses(
    model: Denoiser | None, examples: Examples, draws: Draws, store: FeatureStore
) -> Float32[np.ndarray, "n d"]:
    """The training loss of every draw of each example, from the store or computed: forward passes alone."""
    model = require_model(model)
    model.check(examples)
    settings = {
        "model": model.fingerprint,
        "losses": draws.manifest(),
        "dtype": str(model.dtype),
        "version": VERSION,
    }

    def compute(positions: list[int]) -> Iterator[Features]:
        yield from (part.of["simple"] for part in values(model, examples.take(positions), ["simple"], draws))

    return store.rows(settings, examples.keys, compute)


class FeatureRows(NamedTuple):
    """The rows to compute, as they travel to a worker process."""

    model: Denoiser
    examples: Examples
    spec: GradientSpec
    projector: AnyProjector

    def blocks(self, rows: slice, block: int = BLOCK) -> Iterator[Features]:
        """The features of the examples at `rows`, `block` at a time."""
        examples = self.examples.take(np.arange(len(self.examples))[rows])
        blocks = projected(self.model, examples, self.spec, self.projector, block=block, host=True)
        yield from (features.float().numpy() for features in blocks)


def _block(features: FeatureRows, rows: slice) -> Features:
    return np.concatenate(list(features.blocks(rows)))
