"""Figure 5: LDS (%) with features of different width k

Timesteps evenly spaced, their number in parentheses; one noise each. The damping is chosen by cross-fitting.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "LDS rises with k and saturates."
HERE = {
    "digits": (
        "It holds. With 100 timesteps LDS rises with k from 39.9 to 47.1 (TRAK) and from 40.1 to 45.1 "
        "(D-TRAK) on validation, and hardly beyond k = 4096; with 10 from 15.0 to 20.3 and from 19.1 to 23.9."
    ),
}

WIDTHS = [512 * 2**i for i in range(7)]  # 512 … 32,768


def lines(session: Session) -> list[Line]:
    """TRAK and D-TRAK at every width, for 10 and 100 timesteps."""
    return [
        Line(row=f"`{method}`", column=f"{timesteps}", x=k, **kernel(method, timesteps, k=k))
        for method in ("trak", "d-trak")
        for timesteps in session.counts(10, 100)
        for k in WIDTHS
    ] + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "k"), log=2, ticks={k: f"{k:,}" for k in WIDTHS[::2]})


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_5"), doc=__doc__)
