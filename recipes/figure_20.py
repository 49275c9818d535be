"""Figure 20: training images of high and of low self-influence

Of every class the five training images with the highest τ(i, i) of D-TRAK and the three with the lowest, each with its score, over
100 timesteps evenly spaced, one noise each; k = 4096. The damping is the best on validation.
"""

import sys

import numpy as np

import pages
from engine import Given, Line, kernel, main, tuned_line
from headwater.pages.charts import scale_of

PAPER = "Images of high self-influence look unusual; those of low self-influence have others like them."

TOP, BOTTOM = 5, 3


def page(given: Given) -> None:
    """Self-influence, class by class."""
    import drawing

    run = given.run(tuned_line(Line(row="", **kernel("d-trak", given.counts(100)[0])), given))
    method, train = run.built(), given.bank.train
    own = np.asarray(method.self_scores(method.fit(run.models[0], train, given.store)), np.float32)
    scale = scale_of(own, signed=False)
    classes = np.zeros(len(train), int) if train.labels is None else train.labels
    rows = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        order = members[np.argsort(-own[members], kind="stable")]
        groups = [[drawing.Picture(train.images[i], scale(float(own[i]))) for i in some] for some in (order[:TOP], order[-BOTTOM:])]
        rows.append((f"class {label}" if train.labels is not None else "", groups))
    title, caption = pages.title_and_caption(sys.modules[__name__])
    drawing.save(drawing.album(rows, ("Highest", "Lowest")), given.folder / "figure_20.svg", title)
    unit = f" Scores in units of {scale.unit}." if scale.unit else ""
    pages.save(given.folder / "figure_20.md", [f"# {title}", caption + unit, f"![{title}](figure_20.svg)"])


if __name__ == "__main__":
    main("figure_20", doc=__doc__)
