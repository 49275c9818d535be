"""What a recipe comes to: its jobs, its subsets, the size of its outcomes, and how the model of each job is trained."""

import numpy as np
from jaxtyping import Bool

from headwater import seeds
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.models.adapters import lora_tuning
from headwater.models.cache import Training
from headwater.models.train import Trainable
from headwater.models.unet import Network
from headwater.retraining import ledger
from headwater.retraining.ledger import Job
from headwater.retraining.outcomes import BINS
from headwater.retraining.recipe import BankRecipe
from headwater.retraining.subsets import subsets

Kept = Bool[np.ndarray, "m n"]


def trainable(recipe: BankRecipe, size: tuple[int, int] | None, store: FeatureStore, device: str = "cpu") -> Trainable:
    """What the recipe trains: a network of its own, or adapters of a pipeline for pictures of this size (None: its own).

    Latents and embedded prompts are kept in the store.
    """
    if recipe.adapters is None:
        return Network(recipe.model)
    return lora_tuning(recipe.adapters.base, recipe.adapters.rank, size, store, device)


def training_of(network: Trainable, recipe: BankRecipe, kept: Kept, job: Job) -> Training:
    """How the model of (subset, seed) is trained. Without `common` each subset has initial weights and noise of its own."""
    subset, seed = job
    if subset < 0:
        return Training(network, recipe.training, seed)
    named = seed if recipe.common else seeds.key(seed, "own stream", subset, bits=32)
    return Training(network, recipe.subset_training, named, kept[subset])


def jobs_of(recipe: BankRecipe) -> list[Job]:
    """Every (subset, seed), seed after seed; all the data first, subsets to compare with before those to learn from."""
    jobs = [(m, seed) for m in range(-1, recipe.subsets) for seed in range(recipe.seeds)]
    jobs += [(recipe.subsets + m, seed) for m in range(recipe.learning) for seed in range(recipe.learning_seeds)]
    return sorted(jobs, key=lambda job: job[1])


def subsets_of(recipe: BankRecipe, training: Examples) -> Kept:
    """Those to compare with, then those to learn from."""
    compared = subsets(recipe.scheme, recipe.subsets, training, recipe.part)
    learning = subsets(recipe.scheme, recipe.learning, training, recipe.part, family="learning", apart=compared)
    return np.concatenate([compared, learning])


def size_of(recipe: BankRecipe, queries: int) -> ledger.Size:
    """Of the outcomes, for so many queries."""
    each = max(recipe.seeds, recipe.learning_seeds if recipe.learning else 1)
    return ledger.Size(recipe.subsets + recipe.learning, each, recipe.seeds, queries, BINS, recipe.measurements)
