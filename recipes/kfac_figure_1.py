"""Figure 1: the training images of most positive, most negative and least influence by EK-FAC

For every picture the five with the highest scores, the five with the lowest, and the five whose scores are nearest to zero, each
with its score. 100 timesteps evenly spaced, one noise each; λ = 1e-8.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

import pages
from engine import Given, Line, influence, main, measured_scores
from headwater.pages.charts import scale_of
from headwater.run import first_queries

PAPER = "Positive influences look like the picture, and so do negative ones; neutral ones do not."
HERE = {
    "digits": (
        "It holds: digits of most positive influence look like the query; so do, less, those of most negative, often of a "
        "class that is easily taken for it; the neutral ones do not."
    ),
}

SHOWN, QUERIES = 5, 8


def page(given: Given) -> None:
    """The drawing of some pictures of each split."""
    import drawing

    scores = measured_scores(Line(row="", **influence("ek-fac", given.counts(100)[0])), given)
    title, caption = pages.title_and_caption(sys.modules[__name__])
    heads = ("Query", "Most positive", "Most negative", "Most neutral")
    drawing.save(drawing.album(list(drawn(given, scores)), heads), given.folder / "kfac_figure_1.svg", title)
    made = "Made by `recipes/kfac_figure_1.py`."
    pages.save(given.folder / "kfac_figure_1.md", [f"# {title}", caption, f"![{title}](kfac_figure_1.svg)", made])


def drawn(given: Given, scores: Float[np.ndarray, "q n"]) -> Iterator[tuple[str, list[list[Any]]]]:
    """A row of pictures for each query."""
    from drawing import HUES, QUIET, Picture

    train, queries = given.bank.train.images, given.bank.queries
    for q in first_queries(queries, QUERIES):
        values = scores[q]
        scale, order = scale_of(values, signed=True), np.argsort(-values, kind="stable")
        ends = order[:SHOWN], order[::-1][:SHOWN], np.argsort(np.abs(values), kind="stable")[:SHOWN]
        hues = HUES["d-trak"], HUES["trak"], QUIET
        groups = [[Picture(train[i], scale(float(values[i])), hue) for i in rows] for rows, hue in zip(ends, hues, strict=True)]
        split = "" if queries.split is None else pages.SPLITS.get(queries.split[q], queries.split[q])
        yield f"{split}{f', × {scale.unit}' if scale.unit else ''}", [[Picture(queries.images[q])], *groups]


if __name__ == "__main__":
    main("kfac_figure_1", doc=__doc__)
