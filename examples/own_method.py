"""A method of your own: a frozen dataclass with fit, score, self_scores and resolved, judged by the digits
bank.

Run: python examples/own_method.py. From the command line: headwater attribute --method own_method:Brightness,
with this folder on PYTHONPATH."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

import headwater
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import against


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """τ(q, i) = −|b(x_q) − b(x_i)|^power,   b(x) the mean of the pixels in 0 … 1.

    A picture is explained by training images as bright as it is: a baseline that should not do well.
    """

    title: ClassVar[str] = "Brightness"
    signed: ClassVar[bool] = False

    power: float = 1.0

    def fit(
        self, model: headwater.Denoiser | None, train: headwater.Examples, store: FeatureStore
    ) -> Float[np.ndarray, " n"]:
        """The index: the brightness of every training image."""
        return brightness(train)

    def score(
        self, index: Float[np.ndarray, " n"], queries: headwater.Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q n"]]:
        """One block of all training images."""
        yield -(np.abs(brightness(queries)[:, None] - index) ** self.power)

    def self_scores(self, index: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """An image is as bright as itself."""
        return np.zeros(len(index))

    def resolved(self, index: Float[np.ndarray, " n"]) -> dict[str, object]:
        """Nothing but the fields decides the scores."""
        return {}


def brightness(examples: headwater.Examples) -> Float[np.ndarray, " n"]:
    """The mean pixel of each picture, in 0 … 1."""
    return examples.images.reshape(len(examples), -1).mean(axis=1) / 255


def main() -> None:
    """LDS of the method and of random scores: how well each predicts models that were really retrained."""
    bank = headwater.open_bank("digits")
    for method in (Brightness(), headwater.Pixel(), headwater.Random()):
        scores = headwater.attribute(None, bank.train, bank.queries, method=method)
        mean = against(bank, scores.values).mean()
        print(f"{method.title:16} LDS {100 * mean.mean:5.1f} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]")


if __name__ == "__main__":
    main()
