"""Curvature through the store: estimated part by part by the store's crew, and looked up by a hash of its
settings.

Training images are sorted by content: the estimate does not depend on their order.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import Curvature, kfac, load_curvature
from headwater.curvature.rounding import precision, with_loose
from headwater.curvature.sums import Sums, load_sums, merged
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import StorageError
from headwater.examples import Examples
from headwater.workers import in_order

PART = 256  # images in a part, whose sums one process estimates
PATIENCE = 20.0  # seconds between saves of the sums so far
VERSION = 3  # of the numbers behind equal settings, and of their files

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, eq=False)
class Factors:
    """K-FAC's factors, `part_size` images at a time."""

    model: Denoiser
    examples: Examples
    fisher: Fisher
    variant: str
    joint: bool
    pattern: str
    part_size: int = PART

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the sums."""
        blocks = {"variant": self.variant, "joint": self.joint, "parameters": self.pattern}
        return {"factors": self.fisher.manifest(), **blocks, **_common(self)}

    def part(self, images: slice) -> Sums:
        """The sums over these examples."""
        chosen = self.examples.take(np.arange(len(self.examples))[images])
        return factors(
            self.model, chosen, self.fisher, variant=self.variant, joint=self.joint, pattern=self.pattern
        )


@dataclass(frozen=True, eq=False)
class Squares:
    """The sums of squares behind EK-FAC's eigenvalues, `part_size` images at a time."""

    model: Denoiser
    examples: Examples
    fisher: Fisher
    basis: Curvature
    group: int
    part_size: int = PART

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the sums."""
        return {
            "squares": self.fisher.manifest(),
            "basis": self.basis.basis,
            "group": self.group,
            **_common(self),
        }

    def part(self, images: slice) -> Sums:
        """The sums over these examples."""
        chosen = self.examples.take(np.arange(len(self.examples))[images])
        return squares(self.model, chosen, self.fisher, self.basis, group=self.group)


Estimate = Factors | Squares


def _common(estimate: Estimate) -> dict[str, Any]:
    model = estimate.model
    return {
        "model": model.fingerprint,
        "examples": estimate.examples.fingerprint,
        "dtype": str(model.dtype),
        "part": estimate.part_size,
        "version": VERSION,
    }


def in_order_of_content(examples: Examples) -> Examples:
    """The examples, sorted by content."""
    return examples.take(np.argsort(np.array(examples.keys), kind="stable"))


def kfac_of(estimate: Factors, store: FeatureStore) -> Curvature:
    """K-FAC from these factors. Its eigenvectors are stored: a second decomposition may come out
    differently."""
    with store.place("curvature", estimate.settings) as folder:
        path = folder / "k-fac.safetensors"
        known = _known(path, lambda: load_curvature(path, estimate.model), store)
        if known is None:
            known = kfac(estimate.model, _summed(estimate, folder, store))
            known.save(path)
        eps = precision(known.about)
        return replace(known, blocks=tuple(with_loose(block, eps) for block in known.blocks))


def ekfac_of(estimate: Squares, store: FeatureStore) -> Curvature:
    """EK-FAC from these squares."""
    with store.place("curvature", estimate.settings) as folder:
        return ekfac(estimate.basis, _summed(estimate, folder, store))


def _summed(estimate: Estimate, folder: Path, store: FeatureStore) -> Sums:
    """The sums over all examples, added up in one order and saved on the way, so that a killed fit
    resumes."""
    path, n, size = folder / "sums.safetensors", len(estimate.examples), estimate.part_size
    total = _known(path, lambda: load_sums(path, estimate.model), store)
    finished = 0 if total is None else len(total.parts)
    parts = [slice(low, min(low + size, n)) for low in range(finished * size, n, size)]
    since = time.monotonic()
    for images, part in zip(parts, _parts(estimate, parts, store), strict=True):
        # Equal images give equal parts: only their place tells them apart.
        placed = replace(part, parts=tuple({**manifest, "place": images.start} for manifest in part.parts))
        total = placed if total is None else merged([total, placed])
        if images.stop == n or time.monotonic() - since > PATIENCE:
            total.save(path)
            since = time.monotonic()
        store.progress(images.stop, n)
    assert total is not None
    return total


def _parts(estimate: Estimate, parts: list[slice], store: FeatureStore) -> Iterable[Sums]:
    if store.crew is None:
        return (estimate.part(images) for images in parts)
    return in_order(store.crew.work(_part, replace(estimate, model=estimate.model.alone()), parts), parts)


def _part(estimate: Estimate, images: slice) -> Sums:
    return estimate.part(images)


def _known(path: Path, load: Callable[[], Loaded], store: FeatureStore) -> Loaded | None:
    """The file's content; None if it is missing, or damaged: then it is deleted with a note."""
    if not path.exists():
        return None
    try:
        return load()
    except StorageError as damage:
        path.unlink(missing_ok=True)
        store.warn(f"{damage}")
        return None
