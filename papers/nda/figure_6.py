"""Figure 6: LDS (%) of NDA at a single timestep, by the weight α of the original resolution

α·original + (1−α)·low resolution, with patches of the sizes that NDA takes where none are given. One noise a
query, the 100 heaviest patches of each training image. Every point is measured on all queries of a split, so
the best of a curve is an oracle.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line
from papers._shared.session import Session

PAPER = "Combining the scales is better than either alone at every timestep, mostly at low noise."

HERE = {
    "digits": (
        "It holds at low noise: at t = 100 and 200 α = 0.3 is 3 to 7 points above either scale alone. From t "
        "= 400 on α does not matter."
    ),
    "cifar2-small": (
        "It holds on validation at t = 100 and 200, by about half a point over the better scale. Beyond, "
        "half resolution alone is as good."
    ),
}

TIMES = (100, 200, 300, 400, 500)
ALPHAS = [i / 10 for i in range(11)]


def lines(session: Session) -> list[Line]:
    return [
        Line(row=f"t = {t}", x=alpha, method="nda", fields={"timesteps": (t,), "alpha": alpha})
        for t in TIMES
        for alpha in ALPHAS
    ] + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "α"))


if __name__ == "__main__":
    main(Exhibit("nda", "figure_6"), doc=__doc__)
