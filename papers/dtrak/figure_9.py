"""Figure 9: LDS (%) under different λ

Above, λ of (ΦᵀΦ + λI)⁻¹, on the numbers of the paper's grid (its features are √k longer: its λ is k times
this one); below, λ over the mean squared feature norm,
which is comparable between models and data. Timesteps evenly spaced, their number in parentheses; one noise
each; k = 4096. Every point is measured on all queries of a split, so the best of a curve is an oracle.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "λ decides: LDS has a peak, at other λ for TRAK and for D-TRAK."
HERE = {
    "digits": (
        "There is a peak, at λ near 0.01 of the mean squared feature norm for D-TRAK and near 0.5 for TRAK "
        "(validation, 100 timesteps). Towards λ = 0 LDS falls by more than a third, but not to 0: here are "
        "fewer images than features."
    ),
}

ABSOLUTE = [a * 10.0**b for b in range(-2, 7) for a in (1, 2, 5)]
DIMENSIONLESS = [a * 10.0**b for b in range(-8, 3) for a in (1, 2, 5)]


def line(row: str, method: str, timesteps: int, k: int, swept: dict[str, list[float]]) -> Line:
    """One curve: a point for every λ."""
    return Line(row=row, column=f"{timesteps}", each=True, **kernel(method, timesteps, swept, k=k))


def lines(session: Session) -> list[Line]:
    curves = [(method, timesteps) for method in ("trak", "d-trak") for timesteps in session.counts(10, 100)]
    return [
        *(
            line(f"`{method}`", method, timesteps, 4096, {"absolute_damping": ABSOLUTE})
            for method, timesteps in curves
        ),
        *(
            line(f"`{method}`", method, timesteps, 4096, {"damping": DIMENSIONLESS})
            for method, timesteps in curves
        ),
        *session.references(),
    ]


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    both = (Stretch(rows, "absolute_damping", "λ"), Stretch(rows, "damping", "λ / mean squared feature norm"))
    return curves(*both, log=10)


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_9"), doc=__doc__)
