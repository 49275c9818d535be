"""Figures 5, 9 and 10: LDS (%) of NDA at a single timestep, by the size of its patches

Upwards, the timestep; across, the size of patches at full resolution, and below at half of it. One noise a query, the 100 heaviest
patches of each training image. Every cell is measured on all queries of a split, so the best of a row is an oracle.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine import Given, Line, main
from pages import SPLITS, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = (
    "The best size grows with the timestep; at half resolution it is somewhat larger at the first timesteps; at high noise all "
    "fall off."
)

TIMES = (50, 100, 200, 300, 400, 500, 700)
SCALES = {"full resolution": ("patches", 1.0, 1), "half resolution": ("low_patches", 0.0, 2)}


def lines(given: Given) -> list[Line]:
    side = min(given.bank.train.shape[1:])
    return [
        Line(row=name, column=f"{t}", x=size, method="nda", fields={"timesteps": (t,), field: size, "alpha": alpha})
        for name, (field, alpha, first) in SCALES.items()
        for size in range(first, side + 1, 2)
        for t in TIMES
    ] + given.references()


def draw(rows: Sequence[Row]) -> "Figure":
    """A panel for each resolution and split."""
    import drawing

    panels, ticks = [], []
    for name in SCALES:
        mine = [row for row in rows if row["row"] == name]
        sizes = sorted({row["x"] for row in mine})
        found = {(row["split"], int(row["column"]), row["x"]): row["lds"] for row in mine}
        splits = dict.fromkeys(row["split"] for row in mine)
        matrices = [np.array([[found[split, t, size] for size in sizes] for t in TIMES]) for split in splits]
        panels.append([(f"{SPLITS.get(split, split)}, {name}", each) for split, each in zip(splits, matrices, strict=True)])
        ticks.append(([f"{size:g}" for size in sizes], [str(t) for t in TIMES]))
    return drawing.heat(panels, ticks, ("size of patches", "timestep"))


if __name__ == "__main__":
    main("nda_figure_5", doc=__doc__)
