"""Curvature through the store: estimated part by part, by whoever the store's crew is, and found again by what it was made of.

Training images go in the order of their content: the estimate does not depend on the order they are given in.
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
from headwater.curvature.sums import Sums, load_sums, merged
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import StorageError
from headwater.examples import Examples
from headwater.workers import in_order

PART = 256  # images whose sums are estimated together, by one process
PATIENCE = 20.0  # seconds after which sums are written down as far as they are
VERSION = 2  # of the numbers that given settings stand for, and of the files they are in

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Factors:
    """K-FAC's factors."""

    model: Denoiser
    examples: Examples
    fisher: Fisher
    variant: str
    joint: bool
    pattern: str

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the sums."""
        given = {"variant": self.variant, "joint": self.joint, "parameters": self.pattern}
        return {"factors": self.fisher.manifest(), **given, **_common(self)}

    def part(self, here: slice) -> Sums:
        """Those of some of the examples."""
        chosen = self.examples.take(np.arange(len(self.examples))[here])
        return factors(self.model, chosen, self.fisher, variant=self.variant, joint=self.joint, pattern=self.pattern)


@dataclass(frozen=True, eq=False)
class Squares:
    """The sums of squares that EK-FAC's eigenvalues are means of."""

    model: Denoiser
    examples: Examples
    fisher: Fisher
    basis: Curvature
    group: int

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the sums."""
        return {"squares": self.fisher.manifest(), "basis": self.basis.basis, "group": self.group, **_common(self)}

    def part(self, here: slice) -> Sums:
        """Those of some of the examples."""
        chosen = self.examples.take(np.arange(len(self.examples))[here])
        return squares(self.model, chosen, self.fisher, self.basis, group=self.group)


Estimate = Factors | Squares


def _common(estimate: Estimate) -> dict[str, Any]:
    model = estimate.model
    return {
        "model": model.fingerprint,
        "examples": estimate.examples.fingerprint,
        "dtype": str(model.dtype),
        "part": PART,
        "version": VERSION,
    }


def in_order_of_content(examples: Examples) -> Examples:
    """The same examples, however they came."""
    return examples.take(np.argsort(np.array(examples.keys), kind="stable"))


def kfac_of(estimate: Factors, store: FeatureStore) -> Curvature:
    """K-FAC of these factors. Its eigenvectors are kept: decomposed anew they may turn out differently."""
    with store.place("curvature", estimate.settings) as folder:
        path = folder / "k-fac.safetensors"
        known = _known(path, lambda: load_curvature(path, estimate.model), store)
        if known is None:
            known = kfac(estimate.model, _summed(estimate, folder, store))
            known.save(path)
        return known


def ekfac_of(estimate: Squares, store: FeatureStore) -> Curvature:
    """EK-FAC with these eigenvalues."""
    with store.place("curvature", estimate.settings) as folder:
        return ekfac(estimate.basis, _summed(estimate, folder, store))


def _summed(estimate: Estimate, folder: Path, store: FeatureStore) -> Sums:
    """The sums over all examples. They are added up in one order and written down on the way: a killed fit goes on."""
    path, n = folder / "sums.safetensors", len(estimate.examples)
    total = _known(path, lambda: load_sums(path, estimate.model), store)
    parts = [slice(low, min(low + PART, n)) for low in range(0, n, PART)][0 if total is None else len(total.parts) :]
    since = time.monotonic()
    for here, made in zip(parts, _parts(estimate, parts, store), strict=True):
        found = replace(made, parts=tuple({**each, "place": here.start} for each in made.parts))  # equal images make equal parts
        total = found if total is None else merged([total, found])
        if here.stop == n or time.monotonic() - since > PATIENCE:
            total.save(path)
            since = time.monotonic()
        store.progress(here.stop, n)
    assert total is not None
    return total


def _parts(estimate: Estimate, parts: list[slice], store: FeatureStore) -> Iterable[Sums]:
    if store.crew is None:
        return (estimate.part(here) for here in parts)
    return in_order(store.crew.work(_part, estimate, parts), parts)


def _part(estimate: Estimate, here: slice) -> Sums:
    return estimate.part(here)


def _known(path: Path, load: Callable[[], Found], store: FeatureStore) -> Found | None:
    """What is kept there; None if there is nothing, or if it is damaged, which is told."""
    if not path.exists():
        return None
    try:
        return load()
    except StorageError as damage:
        path.unlink(missing_ok=True)
        store.warn(f"{damage}")
        return None
