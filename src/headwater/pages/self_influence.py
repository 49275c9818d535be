"""The score of each training image for itself: the images that weigh most and least on their own loss."""

from typing import NamedTuple

import numpy as np

from headwater.pages.charts import scale_of
from headwater.pages.gallery import Gallery
from headwater.pages.thumbnails import Thumbnail, thumbnails
from headwater.run import Run
from headwater.scores import top

SHOWN = 8  # at each end
CONSTANT = 1e-5  # of the largest, within which equal values differ by float32 rounding


class SelfInfluence(NamedTuple):
    """One method's extremes; `reason`, in place of them, why there is nothing to rank."""

    name: str
    unit: str
    most: list[Thumbnail]
    least: list[Thumbnail]
    reason: str = ""


def self_influence(run: Run, gallery: Gallery) -> SelfInfluence:
    """A method's extremes, or the reason why it has none."""
    values = run.scores.self_scores
    if not np.isfinite(values).all():
        reason = f"{run.name} cannot tell: it was not asked about the training images themselves."
        return SelfInfluence(run.name, "", [], [], reason)
    if np.ptp(values) <= CONSTANT * np.abs(values).max():
        constant = "gives every training image the same self-influence, so there is nothing to rank."
        reason = f"{run.name} {constant}"
        return SelfInfluence(run.name, "", [], [], reason)
    scale = scale_of(values, signed=bool(values.min() < 0))
    ends = (top([sign * values[None]], SHOWN).rows[0] for sign in (1, -1))
    most, least = (thumbnails(run, rows, values, scale, gallery) for rows in ends)
    return SelfInfluence(run.name, scale.unit, most, least)
