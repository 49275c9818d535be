"""Figures 13 and 14: how a picture's loss changes when half of the data is left out, predicted and actual

Across, the sum of EK-FAC's scores of the images left out; upwards, the loss of the model retrained without them less that of the
model of all data, the mean over seeds. A point is a query and a subset, for fifty queries of each split. EK-FAC: 100 timesteps,
one noise each, λ = 1e-8.
"""

import sys

import numpy as np

import pages
from engine import Given, Line, influence, main, measured_scores
from headwater.linalg.rank import spearman

PAPER = "Influence functions predict about as many falls of the loss as rises; really it almost always rises, and by more."
HERE = {
    "digits": (
        "Predictions fall and rise alike, as in the paper (on generation 39 % rise, really 86 %), on validation less so "
        "(84 and 57 %). And they spread 34 to 38 times too far: at λ = 1e-8 the sum over half of the data is far beyond "
        "where a linear extrapolation holds. Their order is right, their size is not."
    ),
    "digits-mini": "The order is right on validation alone (0.37, generation 0.08), and predictions spread 60 to 71 times too far.",
    "cifar2-small": "Ten timesteps are too few: the order is 0.09 and -0.19, and predictions spread hundreds of times too far.",
}

QUERIES = 50


def page(given: Given) -> None:
    """A panel for every split, and how often each side says that the loss rises."""
    import drawing

    bank, timesteps = given.bank, given.counts(100)[0]
    scores = measured_scores(Line(row="", **influence("ek-fac", timesteps)), given)
    rows, seeds = bank.rows(), bank.seeds()
    full = np.load(bank.folder / "full.npy")[seeds].mean(0)
    actual = bank.outcomes()[rows][:, seeds].mean(1) - full
    predicted = (~bank.subsets[rows]).astype(np.float64) @ scores.T.astype(np.float64)
    split, panels = np.array(bank.queries.split), []
    heads = ["", "predicted to rise", "rose", "predicted, mean ± sd", "actual, mean ± sd", "ratio of the sds", "rank correlation"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for part in dict.fromkeys(split):
        some = np.flatnonzero(split == part)[:QUERIES]
        x, y = predicted[:, some].ravel(), actual[:, some].ravel()
        panels.append((pages.SPLITS.get(part, part).capitalize(), x, y))
        shares = f"{100 * (x > 0).mean():.0f} % | {100 * (y > 0).mean():.0f} %"
        ranks = float(spearman(x[None], y[None])[0])
        sizes = " | ".join(f"{each.mean():.4f} ± {each.std():.4f}" for each in (x, y))
        lines.append(f"| {pages.SPLITS.get(part, part)} | {shares} | {sizes} | {x.std() / y.std():.0f} | {ranks:.2f} |")
    title, caption = pages.title_and_caption(sys.modules[__name__])
    drawing.save(drawing.scatter(panels, ("predicted change", "actual change")), given.folder / "kfac_figure_13.svg", title)
    ground = f"Bank `{bank.folder.name}`: {len(rows)} subsets × {len(seeds)} seeds."
    shown = [f"![{title}](kfac_figure_13.svg)", "\n".join(lines), "Made by `recipes/kfac_figure_13.py`."]
    pages.save(given.folder / "kfac_figure_13.md", [f"# {title}", caption, ground, *shown])


if __name__ == "__main__":
    main("kfac_figure_13", doc=__doc__)
