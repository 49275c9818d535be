"""Counterfactual evaluation: a picture's alleged sources are taken away, the model is trained again, and the picture made again.

If they were its sources, it changes more than when as many training images go at random. (Zheng et al. 2023, D-TRAK,
arXiv:2311.00500, section 4.4; Mlodozeniec et al. 2024, arXiv:2410.13850, appendix G.6, for the change of a measurement.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.stats import wilcoxon

from headwater.errors import OptionError
from headwater.linalg.rank import Interval, interval, resamples
from headwater.scores import top

RESAMPLES = 10_000


class Spread(NamedTuple):
    """The quartiles of an effect over queries."""

    low: float
    median: float
    high: float


class Paired(NamedTuple):
    """How far one effect is above another on the same queries: the mean difference, and Wilcoxon's signed-rank test of it."""

    difference: Interval
    p: float
    above: int  # queries on which the first is above the second


def without(scores: Float[np.ndarray, " n"], k: int) -> Bool[np.ndarray, " n"]:
    """True for the images that stay when the k strongest proponents go; of equal scores the first go."""
    if not 1 <= k < len(scores):
        raise OptionError(f"{k} of {len(scores)} training images are to be removed; expected 1 to {len(scores) - 1}.")
    kept = np.ones(len(scores), bool)
    kept[top([scores[None]], k).rows[0]] = False
    return kept


def counts(words: Sequence[str], n: int) -> list[int]:
    """How many images to remove: numbers, or percentages of the n."""
    found = []
    for word in words:
        try:
            found.append(round(float(word[:-1]) / 100 * n) if word.endswith("%") else int(word))
        except (ValueError, OverflowError):
            raise OptionError(f"--remove is {word}; expected numbers or percentages, such as 500,1000 or 2%,10%.") from None
    return found


def distance(before: Float[np.ndarray, "q c h w"], after: Float[np.ndarray, "q c h w"]) -> Float64[np.ndarray, " q"]:
    """‖before − after‖₂ of each picture, pixels in [−1, 1]."""
    return np.linalg.norm((before.astype(np.float64) - after).reshape(len(before), -1), axis=1)


def spread(values: Float[np.ndarray, " q"]) -> Spread:
    """Quartiles over queries."""
    return Spread(*np.percentile(values, [25, 50, 75]).tolist())


def paired(a: Float[np.ndarray, " q"], b: Float[np.ndarray, " q"]) -> Paired:
    """The mean of a − b over queries with its bootstrap interval, and the two-sided p-value of Wilcoxon's signed-rank test."""
    differences = a.astype(np.float64) - b
    samples = differences[resamples(len(differences), RESAMPLES, "counterfactual")].mean(axis=1)
    p = float(wilcoxon(differences)[1]) if differences.any() else 1.0  # pyright: ignore[reportArgumentType]
    return Paired(interval(float(differences.mean()), samples), p, int((differences > 0).sum()))
