"""The effects of removals in words: how much each picture changed without a method's images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater.evaluate.removals import RemovalEffect, RemovalFigures
from headwater.words import number

EFFECTS = {
    "l2": (
        "Distance",
        "ℓ₂ between the picture before and after, pixels in [−1, 1]. Larger: the picture changed more.",
    ),
    "cosine": (
        "Likeness",
        "cosine of the pictures before and after under {embedder}. Smaller: the picture changed more.",
    ),
    "simple": (
        "Training loss",
        "how much worse the retrained model does on the picture. Larger: the images mattered more.",
    ),
}
MEASUREMENT = ("Change of {name}", "how much the measurement rose. Larger: the images mattered more.")


class RemovalRow(NamedTuple):
    """One effect of one method's removal of `removed` images, on every picture and in words.

    `against`, `p` and `above` compare it with random removal, paired: the mean difference with its interval,
    the p-value, and the number of pictures above. For random removal itself they are empty.
    """

    method: str
    removed: int
    per_picture: list[float]
    median: str
    low: str
    high: str
    against: str
    p: str
    above: str

    @property
    def kind(self) -> str:
        """The class of the row: random removal looks different."""
        return "method" if self.against else "random"


class Effect(NamedTuple):
    """One effect: its title, its explanation, and a removal for each number of images and each method."""

    name: str
    title: str
    explanation: str
    removals: list[RemovalRow]

    @property
    def span(self) -> tuple[float, float]:
        """The axis that all boxes share. Cosines need not be drawn from 0."""
        values = np.concatenate([removal.per_picture for removal in self.removals])
        low, high = float(values.min()), float(values.max())
        if self.name != "cosine":
            low = min(0.0, low)
        return low, high + 0.03 * (high - low or 1.0)


def effects(figures: RemovalFigures) -> list[Effect]:
    """Everything that was measured, in the order of the page."""
    first = next(iter(figures.methods.values())).removed[figures.removed[0]]
    order = list(EFFECTS)
    names = sorted(first, key=lambda name: order.index(name) if name in order else len(order))
    return [effect(figures, name) for name in names]


def effect(figures: RemovalFigures, name: str) -> Effect:
    """One of the effects that were measured."""
    title, explanation = EFFECTS.get(name, MEASUREMENT)
    rows = [
        (method, count, effects.removed[count][name])
        for count in figures.removed
        for method, effects in figures.methods.items()
    ]
    decimals, pictures = _decimals([measured for _, _, measured in rows]), len(figures.queries)
    removals = [_removal(method, count, measured, decimals, pictures) for method, count, measured in rows]
    return Effect(name, title.format(name=name), explanation.format(embedder=figures.embedder), removals)


def _removal(method: str, count: int, measured: RemovalEffect, decimals: int, pictures: int) -> RemovalRow:
    low, median, high = (number(value, decimals) for value in measured.quartiles)
    against, p, above = "", "", ""
    if (paired := measured.against_random) is not None:
        mean, least, most = (number(value, decimals, "+") for value in paired.difference)
        against, above = f"{mean} [{least}, {most}]", f"{paired.above} of {pictures}"
        p = f"{paired.p:.2g}" if paired.p >= 0.001 else "<0.001"
    return RemovalRow(method, count, measured.values.tolist(), median, low, high, against, p, above)


def _decimals(rows: Sequence[RemovalEffect]) -> int:
    """The number of decimals that gives the largest median three figures."""
    largest = max(abs(measured.quartiles.median) for measured in rows)
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 2
