"""Figures 5, 9 and 10: LDS (%) of NDA at a single timestep, by the size of its patches

Upwards, the timestep; across, the size of patches at full resolution, and below at half of it. One noise a
query, the 100 heaviest patches of each training image. Every cell is measured on all queries of a split, so
the best of a row is an oracle.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import SPLITS, Row
from papers._shared.line import Line
from papers._shared.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = (
    "The best size grows with the timestep; at half resolution it is somewhat larger at the first timesteps; "
    "at high noise all fall off."
)

HERE = {
    "digits": (
        "Large patches are best at every timestep, for a picture has but 8 pixels: 7 at full resolution, 6 "
        "or 8 at half of it, 46.7 and 49.1 at t = 100. All fall off from t = 300 and predict nothing at 700."
    ),
    "cifar2-small": (
        "On validation small patches are best and the best size grows with the timestep, as in the paper: 3 "
        "pixels at t = 50 and 100, 5 at 200; single pixels, which know colours alone, are as good as any "
        "from t = 300 on. On generation single pixels predict the wrong way round, and 7 to 13 pixels are "
        "best; the sizes that are taken where none are given lie between."
    ),
}

TIMES = (50, 100, 200, 300, 400, 500, 700)
SCALES = {"full resolution": ("patches", 1.0, 1), "half resolution": ("low_patches", 0.0, 2)}


def lines(session: Session) -> list[Line]:
    side = min(session.bank.train.shape[1:])
    return [
        Line(
            row=name,
            column=f"{t}",
            x=size,
            method="nda",
            fields={"timesteps": (t,), field: size, "alpha": alpha},
        )
        for name, (field, alpha, first) in SCALES.items()
        for size in range(first, side + 1, 2)
        for t in TIMES
    ] + session.references()


def draw(rows: Sequence[Row]) -> "Figure":
    """A panel for each resolution and split."""
    from papers._shared.drawing import heat

    panels, ticks = [], []
    for name in SCALES:
        members = [row for row in rows if row["row"] == name]
        sizes = sorted({row["x"] for row in members})
        lds = {(row["split"], int(row["column"]), row["x"]): row["lds"] for row in members}
        splits = dict.fromkeys(row["split"] for row in members)
        titles = [f"{SPLITS.get(split, split)}, {name}" for split in splits]
        matrices = [np.array([[lds[split, t, size] for size in sizes] for t in TIMES]) for split in splits]
        panels.append(list(zip(titles, matrices, strict=True)))
        ticks.append(([f"{size:g}" for size in sizes], [str(t) for t in TIMES]))
    return heat(panels, ticks, ("size of patches", "timestep"))


if __name__ == "__main__":
    main(Exhibit("nda", "figure_5"), doc=__doc__)
