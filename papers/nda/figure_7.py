"""Figure 7: LDS (%) of NDA at a single timestep, by how many patches of a training image count

Of each training image the heaviest patches count, for each patch of the query. Sizes of patches and α are
those that NDA takes where none are given, with one noise a query. Every point is measured on all queries of a
split, so the best of a curve is an oracle.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line
from papers._shared.session import Session

PAPER = "An intermediate number is best at every timestep, and is so for validation and for generation."

HERE = {
    "digits": (
        "It does not hold: at 8 pixels a picture has 4 to 16 such patches inside, and one or all of them "
        "predict alike."
    ),
    "cifar2-small": (
        "It does not hold: from 1 patch to all of them, nothing changes by more than half a point."
    ),
}

TIMES = (100, 200, 300)
TOPS = [1, 2, 5, 10, 20, 50, 100, 200]


def lines(session: Session) -> list[Line]:
    return [
        Line(row=f"t = {t}", x=top, method="nda", fields={"timesteps": (t,), "topk": top})
        for t in TIMES
        for top in TOPS
    ] + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "patches of a training image that count"), log=10)


if __name__ == "__main__":
    main(Exhibit("nda", "figure_7"), doc=__doc__)
