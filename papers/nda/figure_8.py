"""Figure 8: LDS (%) of NDA by the largest timestep of its mean

The timesteps are 100, 200, … up to the largest; sizes of patches and α are those that NDA takes where none
are given, with one noise a query and the 100 heaviest patches of each training image. Every point is measured
on all queries of a split.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line
from papers._shared.session import Session

PAPER = (
    "More timesteps help up to the middle of the schedule (500); beyond, nothing is gained or some is lost."
)

HERE = {
    "digits": (
        "It holds: 51.3 with t = 100 alone, 59.5 up to 400 or 500, and nothing is gained or lost beyond."
    ),
    "cifar2-small": (
        "It holds: 13.3 with t = 100 alone, 16.3 up to 300, and nothing is gained or lost beyond."
    ),
}

LARGEST = range(100, 1000, 100)


def lines(session: Session) -> list[Line]:
    return [
        Line(row="`nda`", x=largest, method="nda", fields={"timesteps": tuple(range(100, largest + 1, 100))})
        for largest in LARGEST
    ] + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "largest timestep"))


if __name__ == "__main__":
    main(Exhibit("nda", "figure_8"), doc=__doc__)
