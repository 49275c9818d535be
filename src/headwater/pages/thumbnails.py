"""Training images in a row: each with its picture, its label or prompt, and its score."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from headwater.pages.charts import Scale
from headwater.pages.gallery import Gallery, Picture
from headwater.run import Run


class Thumbnail(NamedTuple):
    """A training image in a row; `length` is the size of its score in percent of the largest of all."""

    picture: Picture | None
    id: str
    label: int | None
    prompt: str
    score: str
    length: float


def thumbnails(
    run: Run, rows: Int64[np.ndarray, " k"], values: Float32[np.ndarray, " n"], scale: Scale, gallery: Gallery
) -> list[Thumbnail]:
    """The training images of these rows, by the scores of all."""
    largest = float(np.abs(values).max()) or 1.0
    lengths = np.round(100 * np.abs(values[rows]) / largest, 1)
    return [
        Thumbnail(
            gallery.row(row),
            run.scores.train_ids[row],
            label_at(run.labels, row),
            prompt_at(run.prompts, row),
            scale(float(values[row])),
            float(length),
        )
        for row, length in zip(rows.tolist(), lengths, strict=True)
    ]


def label_at(labels: Int64[np.ndarray, " n"] | None, row: int) -> int | None:
    """The label of a row; −1 stands for none."""
    return None if labels is None or labels[row] < 0 else int(labels[row])


def prompt_at(prompts: Sequence[str] | None, row: int) -> str:
    """The prompt of a row, or an empty string."""
    return "" if prompts is None else prompts[row]
