"""Figure 20: training images of high and of low self-influence

Of every class the five training images with the highest τ(i, i) of D-TRAK and the three with the lowest, each
with its score, over 100 timesteps evenly spaced, one noise each; k = 4096. The damping is the best on
validation.
"""

import numpy as np

from headwater.pages.charts import scale_of
from papers._shared.bench import tuned_line
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "Images of high self-influence look unusual; those of low self-influence have others like them."

TOP, BOTTOM = 5, 3


def page(session: Session, exhibit: Exhibit) -> None:
    """Self-influence, class by class."""
    from papers._shared.drawing import Picture, album

    line = Line(row="", **kernel("d-trak", session.counts(100)[0]))
    experiment = session.experiment(tuned_line(line, session))
    method, train = experiment.built(), session.bank.train
    self_scores = np.asarray(
        method.self_scores(method.fit(experiment.models[0], train, session.store)), np.float32
    )
    scale = scale_of(self_scores, signed=False)
    classes = np.zeros(len(train), int) if train.labels is None else train.labels
    rows = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        order = members[np.argsort(-self_scores[members], kind="stable")]
        ends = (order[:TOP], order[-BOTTOM:])
        groups = [[Picture(train.images[i], scale(float(self_scores[i]))) for i in end] for end in ends]
        rows.append((f"class {label}" if train.labels is not None else "", groups))
    figure = exhibit.save_figure(album(rows, ("Highest", "Lowest")), session.folder)
    unit = f" Scores in units of {scale.unit}." if scale.unit else ""
    exhibit.save_page(session.folder, [figure], caption=exhibit.caption + unit)


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_20"), doc=__doc__)
