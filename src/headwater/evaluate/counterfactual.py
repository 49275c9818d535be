"""Counterfactual evaluation: does a picture change when the model is trained without its alleged sources?

If they were its sources, it changes more than when the same number of training images is removed at random.
(Zheng et al. 2023, D-TRAK, arXiv:2311.00500, section 4.4; Mlodozeniec et al. 2024, arXiv:2410.13850, appendix
G.6, for the change of a measurement.)
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.stats import wilcoxon

from headwater.errors import OptionError
from headwater.evaluate.removals import EffectComparison, Quartiles, RemovalEffect
from headwater.linalg.rank import interval, resamples
from headwater.scores import top

RESAMPLES = 10_000


def without(scores: Float[np.ndarray, " n"], k: int) -> Bool[np.ndarray, " n"]:
    """True for the images that stay when the k strongest proponents go; of equal scores the first go."""
    if not 1 <= k < len(scores):
        raise OptionError(
            f"{k} of {len(scores)} training images are to be removed; expected 1 to {len(scores) - 1}."
        )
    mask = np.ones(len(scores), bool)
    mask[top([scores[None]], k).rows[0]] = False
    return mask


def removal_counts(words: Sequence[str], n: int) -> list[int]:
    """Numbers of images to remove, from numbers or percentages of n."""
    counts = []
    for word in words:
        try:
            counts.append(round(float(word[:-1]) / 100 * n) if word.endswith("%") else int(word))
        except (ValueError, OverflowError):
            raise OptionError(
                f"The images to remove are '{word}'; expected a number or a percentage, such as 500 or 2%.",
                hint="Several are separated by commas: --remove 500,1000 or --remove 2%,10%.",
            ) from None
    return counts


def distance(
    before: Float[np.ndarray, "q c h w"], after: Float[np.ndarray, "q c h w"]
) -> Float64[np.ndarray, " q"]:
    """‖before − after‖₂ of each picture, pixels in [−1, 1]."""
    return np.linalg.norm((before.astype(np.float64) - after).reshape(len(before), -1), axis=1)


def quartiles(values: Float[np.ndarray, " q"]) -> Quartiles:
    """Quartiles over queries."""
    return Quartiles(*np.percentile(values, [25, 50, 75]).tolist())


def compare_effects(a: Float[np.ndarray, " q"], b: Float[np.ndarray, " q"]) -> EffectComparison:
    """The mean of a − b over queries with its bootstrap interval, and Wilcoxon's two-sided p-value."""
    differences = a.astype(np.float64) - b
    samples = differences[resamples(len(differences), RESAMPLES, "counterfactual")].mean(axis=1)
    p = float(wilcoxon(differences)[1]) if differences.any() else 1.0  # pyright: ignore[reportArgumentType]
    return EffectComparison(interval(float(differences.mean()), samples), p, int((differences > 0).sum()))


def removal_effect(
    values: Float[np.ndarray, " q"], at_random: Float[np.ndarray, " q"] | None
) -> RemovalEffect:
    """One effect on each query, compared with that of random removal (None: it is random removal)."""
    paired = None if at_random is None else compare_effects(values, at_random)
    return RemovalEffect(values, quartiles(values), paired)
