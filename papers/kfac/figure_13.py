"""Figures 13 and 14: how a picture's loss changes when half of the data is left out, predicted and actual

Across, the sum of EK-FAC's scores of the images left out; upwards, the loss of the model retrained without
them less that of the model of all data, the mean over seeds. A point is a query and a subset, for fifty
queries of each split. EK-FAC: 100 timesteps, one noise each, λ = 1e-8.
"""

import numpy as np

from headwater.linalg.rank import spearman
from papers._shared.bench import measured_scores
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import SPLITS
from papers._shared.line import Line, influence
from papers._shared.session import Session

PAPER = (
    "Influence functions predict about as many falls of the loss as rises; really it almost always rises, "
    "and by more."
)
HERE = {
    "digits": (
        "Predictions fall and rise alike, as in the paper (on generation 39 % rise, really 86 %), on "
        "validation less so (84 and 57 %). And they spread 34 to 38 times too far: at λ = 1e-8 the sum over "
        "half of the data is far beyond where a linear extrapolation holds. Their order is right, their size "
        "is not."
    ),
    "digits-mini": (
        "The order is right on validation alone (0.37, generation 0.08), and predictions spread 60 to 71 "
        "times too far."
    ),
    "cifar2-small": (
        "Ten timesteps are too few: the order is 0.09 and -0.19, and predictions spread hundreds of times "
        "too far."
    ),
}

QUERIES = 50


def page(session: Session, exhibit: Exhibit) -> None:
    """A panel for every split, and how often each side says that the loss rises."""
    from papers._shared.drawing import scatter

    bank, timesteps = session.bank, session.counts(100)[0]
    scores = measured_scores(Line(row="", **influence("ek-fac", timesteps)), session)
    rows, seeds = bank.rows(), bank.seeds()
    full = np.load(bank.folder / "full.npy")[seeds].mean(0)
    actual = bank.outcomes()[rows][:, seeds].mean(1) - full
    predicted = (~bank.subsets[rows]).astype(np.float64) @ scores.T.astype(np.float64)
    split, panels = np.array(bank.queries.split), []
    heads = ["", "predicted to rise", "rose", "predicted, mean ± sd", "actual, mean ± sd"]
    heads += ["ratio of the sds", "rank correlation"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for part in dict.fromkeys(split):
        queries = np.flatnonzero(split == part)[:QUERIES]
        x, y = predicted[:, queries].ravel(), actual[:, queries].ravel()
        panels.append((SPLITS.get(part, part).capitalize(), x, y))
        shares = f"{100 * (x > 0).mean():.0f} % | {100 * (y > 0).mean():.0f} %"
        ranks = float(spearman(x[None], y[None])[0])
        sizes = " | ".join(f"{change.mean():.4f} ± {change.std():.4f}" for change in (x, y))
        lines.append(
            f"| {SPLITS.get(part, part)} | {shares} | {sizes} | {x.std() / y.std():.0f} | {ranks:.2f} |"
        )
    figure = exhibit.save_figure(scatter(panels, ("predicted change", "actual change")), session.folder)
    ground = f"Bank `{bank.folder.name}`: {len(rows)} subsets × {len(seeds)} seeds."
    exhibit.save_page(session.folder, [ground, figure, "\n".join(lines), f"{exhibit.origin}."])


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_13"), doc=__doc__)
