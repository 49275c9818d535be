"""The jobs of a recipe, one for each model: their subsets, trainings and the shape of their outcomes."""

import numpy as np
from jaxtyping import Bool

from headwater import seeds
from headwater.disk.outcomes import Job, OutcomeShape
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.models.adapters import lora_tuning
from headwater.models.cache import Training
from headwater.models.train import Trainable
from headwater.models.unet import Network
from headwater.retraining.outcomes import BINS
from headwater.retraining.recipe import BankRecipe
from headwater.retraining.subsets import draw_subsets

Subsets = Bool[np.ndarray, "m n"]


def trainable(
    recipe: BankRecipe, size: tuple[int, int] | None, store: FeatureStore, device: str = "cpu"
) -> Trainable:
    """The recipe's own network, or adapters of its pipeline for pictures of this size (None: the pipeline's).

    Latents and embedded prompts are kept in the store.
    """
    if recipe.adapters is None:
        return Network(recipe.model)
    return lora_tuning(recipe.adapters.base, recipe.adapters.rank, size, store, device)


def training_of(network: Trainable, recipe: BankRecipe, subsets: Subsets, job: Job) -> Training:
    """The training of model (subset, seed). Without `common`, weights and noise depend on the subset too."""
    subset, seed = job
    if subset < 0:
        return Training(network, recipe.training, seed)
    stream = seed if recipe.common else seeds.key(seed, "own stream", subset, bits=32)
    return Training(network, recipe.subset_training, stream, subsets[subset])


def jobs_of(recipe: BankRecipe) -> list[Job]:
    """Every (subset, seed), seed by seed: all data, subsets to compare with, subsets to learn from."""
    jobs = [(m, seed) for m in range(-1, recipe.subsets) for seed in range(recipe.seeds)]
    jobs += [
        (recipe.subsets + m, seed) for m in range(recipe.learning) for seed in range(recipe.learning_seeds)
    ]
    return sorted(jobs, key=lambda job: job[1])


def subsets_of(recipe: BankRecipe, training: Examples) -> Subsets:
    """The subsets to compare with, then those to learn from."""
    compared = draw_subsets(recipe.scheme, recipe.subsets, training, recipe.part)
    learning = draw_subsets(
        recipe.scheme, recipe.learning, training, recipe.part, family="learning", apart=compared
    )
    return np.concatenate([compared, learning])


def outcome_shape(recipe: BankRecipe, queries: int) -> OutcomeShape:
    """The shape of the outcome arrays for this many queries."""
    seeds_of_a_subset = max(recipe.seeds, recipe.learning_seeds if recipe.learning else 1)
    subsets = recipe.subsets + recipe.learning
    return OutcomeShape(subsets, seeds_of_a_subset, recipe.seeds, queries, BINS, recipe.measurements)
