"""headwater: which training images a diffusion model's picture came from.

`attribute(model, train, queries, method=DTRAK())` gives `Scores`; see the README for ten lines that do
something."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Examples": "headwater.examples",
    "Scores": "headwater.scores",
    "Credit": "headwater.credit.shares",
    "FeatureStore": "headwater.disk.store",
    "Bank": "headwater.bank",
    "open_bank": "headwater.bank",
    "open_examples": "headwater.data",
    "Denoiser": "headwater.diffusion.denoiser",
    "Draws": "headwater.diffusion.draws",
    "load": "headwater.models.loading",
    "METHODS": "headwater.methods",
    "Random": "headwater.methods.random",
    "Pixel": "headwater.methods.pixel",
    "Gradient": "headwater.methods.gradient",
    "GradientCos": "headwater.methods.gradient",
    "TRAK": "headwater.methods.trak",
    "DTRAK": "headwater.methods.dtrak",
    "CLIP": "headwater.methods.clip",
    "TracIn": "headwater.methods.tracin",
    "GAS": "headwater.methods.gas",
    "DAS": "headwater.methods.das",
    "RelativeIF": "headwater.methods.relative_if",
    "RenormIF": "headwater.methods.renorm_if",
    "JourneyTRAK": "headwater.methods.journey_trak",
    "EmpiricalIF": "headwater.methods.empirical_if",
    "Datamodel": "headwater.methods.datamodel",
    "KFAC": "headwater.methods.kfac",
    "EKFAC": "headwater.methods.ekfac",
    "NDA": "headwater.methods.nda",
    "OptimalScore": "headwater.methods.optimal_score",
    "PatchSimilarity": "headwater.methods.patch_similarity",
    "Embedder": "headwater.families.embedding",
    "attribute": "headwater.attribution.attribute",
    "report": "headwater.pages.page",
}

if TYPE_CHECKING:
    from headwater.attribution.attribute import attribute
    from headwater.bank import Bank, open_bank
    from headwater.credit.shares import Credit
    from headwater.data import open_examples
    from headwater.diffusion.denoiser import Denoiser
    from headwater.diffusion.draws import Draws
    from headwater.disk.store import FeatureStore
    from headwater.examples import Examples
    from headwater.families.embedding import Embedder
    from headwater.methods import METHODS
    from headwater.methods.clip import CLIP
    from headwater.methods.das import DAS
    from headwater.methods.datamodel import Datamodel
    from headwater.methods.dtrak import DTRAK
    from headwater.methods.ekfac import EKFAC
    from headwater.methods.empirical_if import EmpiricalIF
    from headwater.methods.gas import GAS
    from headwater.methods.gradient import Gradient, GradientCos
    from headwater.methods.journey_trak import JourneyTRAK
    from headwater.methods.kfac import KFAC
    from headwater.methods.nda import NDA
    from headwater.methods.optimal_score import OptimalScore
    from headwater.methods.patch_similarity import PatchSimilarity
    from headwater.methods.pixel import Pixel
    from headwater.methods.random import Random
    from headwater.methods.relative_if import RelativeIF
    from headwater.methods.renorm_if import RenormIF
    from headwater.methods.tracin import TracIn
    from headwater.methods.trak import TRAK
    from headwater.models.loading import load
    from headwater.pages.page import report
    from headwater.scores import Scores

__all__ = [
    "METHODS",
    "TRAK",
    "Bank",
    "Credit",
    "DTRAK",
    "Denoiser",
    "Draws",
    "Examples",
    "FeatureStore",
    "Gradient",
    "GradientCos",
    "Pixel",
    "Random",
    "Scores",
    "CLIP",
    "TracIn",
    "GAS",
    "DAS",
    "RelativeIF",
    "RenormIF",
    "JourneyTRAK",
    "EmpiricalIF",
    "Datamodel",
    "KFAC",
    "EKFAC",
    "NDA",
    "OptimalScore",
    "PatchSimilarity",
    "Embedder",
    "attribute",
    "load",
    "open_bank",
    "open_examples",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: looking at results must not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headwater' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
