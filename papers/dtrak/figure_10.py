"""Figure 10: LDS (%) under different λ at two widths k

As figure 9 on its dimensionless scale, with k = 4096 above and k = 32768 below; the paper shows it for its
largest data set. Timesteps evenly spaced, their number in parentheses; one noise each. Every point is
measured on all queries of a split, so the best of a curve is an oracle.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line
from papers._shared.session import Session
from papers.dtrak.figure_9 import DIMENSIONLESS, line

PAPER = "λ decides, and D-TRAK's peak is sharp."
HERE = {
    "digits": (
        "The peaks are broad, and at the same λ for both widths, for TRAK fifty to a hundred times that of "
        "D-TRAK. The larger width loses less far from the peak: at λ → 0 D-TRAK has 32.3 of 45.3 with k = "
        "32768, 27.5 of 44.6 with 4096 (validation, 100 timesteps)."
    ),
}

WIDTHS = (4096, 32768)


def lines(session: Session) -> list[Line]:
    return [
        line(f"`{method}`, k = {k}", method, timesteps, k, {"damping": DIMENSIONLESS})
        for k in WIDTHS
        for method in ("trak", "d-trak")
        for timesteps in session.counts(10, 100)
    ] + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    def of(k):
        of_width = [row for row in rows if row["fields"].get("k", k) == k]
        return [{**row, "row": row["method"]} for row in of_width]

    return curves(
        *(Stretch(of(k), "damping", f"λ / mean squared feature norm, k = {k:,}") for k in WIDTHS), log=10
    )


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_10"), doc=__doc__)
