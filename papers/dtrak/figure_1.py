"""Figure 1: LDS (%) where φ goes from one function to another: η `square` + (1−η)(`simple` − `square`)

η = 1 is `square` (D-TRAK), η = ½ is half of `simple` (TRAK), η = 0 is the product of output and target.
Timesteps evenly spaced, their number in parentheses; one noise each; k = 4096. At every η the damping is
chosen by cross-fitting.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "η = ½, the loss itself, is the worst; towards 0 and towards 1 LDS rises."
HERE = {
    "digits": (
        "The loss itself (η = ½) is not the worst: LDS rises towards η = 1, by 7.9 [4.9, 10.6] at η = 0.8 "
        "with 10 timesteps and by 3.2 [1.8, 4.5] at 0.6 with 100 (validation), but falls towards 0, by 5.2 "
        "[2.7, 7.6] and 12.1 [9.2, 14.3]."
    ),
}

ETAS = [i / 10 for i in range(11)]


def line(eta: float, timesteps: int) -> Line:
    """φ at one η."""
    return Line(
        row="η",
        column=f"{timesteps}",
        x=eta,
        **kernel("d-trak", timesteps, measurement=f"eta:{eta:g}", k=4096),
    )


def lines(session: Session) -> list[Line]:
    """Eleven η for 10 and for 100 timesteps."""
    return [
        line(eta, timesteps) for timesteps in session.counts(10, 100) for eta in ETAS
    ] + session.references()


def base(of: Line) -> Line | None:
    """Each is compared with η = ½ at as many timesteps."""
    return None if of.x is None else line(0.5, of.fields["timesteps"])


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "η"), ticks={0: "0\noutput · target", 0.5: "½\nTRAK", 1: "1\nD-TRAK"})


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_1"), doc=__doc__)
