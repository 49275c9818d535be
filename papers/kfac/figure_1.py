"""Figure 1: the training images of most positive, most negative and least influence by EK-FAC

For every picture the five with the highest scores, the five with the lowest, and the five whose scores are
nearest to zero, each with its score. 100 timesteps evenly spaced, one noise each; λ = 1e-8.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from headwater.pages.charts import scale_of
from headwater.run import first_queries
from papers._shared.bench import measured_scores
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import SPLITS
from papers._shared.line import Line, influence
from papers._shared.session import Session

PAPER = "Positive influences look like the picture, and so do negative ones; neutral ones do not."
HERE = {
    "digits": (
        "It holds: digits of most positive influence look like the query; so do, less, those of most "
        "negative, often of a class that is easily taken for it; the neutral ones do not."
    ),
}

SHOWN, QUERIES = 5, 8


def page(session: Session, exhibit: Exhibit) -> None:
    """The drawing of some pictures of each split."""
    from papers._shared.drawing import album

    scores = measured_scores(Line(row="", **influence("ek-fac", session.counts(100)[0])), session)
    heads = ("Query", "Most positive", "Most negative", "Most neutral")
    figure = exhibit.save_figure(album(list(rows_of_pictures(session, scores)), heads), session.folder)
    exhibit.save_page(session.folder, [figure, f"{exhibit.origin}."])


def rows_of_pictures(
    session: Session, scores: Float[np.ndarray, "q n"]
) -> Iterator[tuple[str, list[list[Any]]]]:
    """A row of pictures for each query."""
    from papers._shared.drawing import HUES, QUIET, Picture

    train, queries = session.bank.train.images, session.bank.queries
    for q in first_queries(queries, QUERIES):
        values = scores[q]
        scale, order = scale_of(values, signed=True), np.argsort(-values, kind="stable")
        ends = order[:SHOWN], order[::-1][:SHOWN], np.argsort(np.abs(values), kind="stable")[:SHOWN]
        hues = HUES["d-trak"], HUES["trak"], QUIET
        groups = [
            [Picture(train[i], scale(float(values[i])), hue) for i in rows]
            for rows, hue in zip(ends, hues, strict=True)
        ]
        split = "" if queries.split is None else SPLITS.get(queries.split[q], queries.split[q])
        yield f"{split}{f', × {scale.unit}' if scale.unit else ''}", [[Picture(queries.images[q])], *groups]


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_1"), doc=__doc__)
