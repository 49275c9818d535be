"""Figures 7 to 10: LDS (%) of influence functions, TRAK and D-TRAK under different λ, on one axis

λ in the units of the mean training loss: what TRAK and D-TRAK add to ΦᵀΦ is divided by the number of training
images. 100 timesteps evenly spaced, one noise each; k = 4096. Every point is measured on all queries of a
split, so the best of a curve is an oracle.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, influence, kernel
from papers._shared.session import Session

PAPER = "K-FAC has a wide plateau below 1e-8; TRAK and D-TRAK have a peak, and fail left of it."
HERE = {
    "digits": (
        "It holds. K-FAC and EK-FAC have a plateau below 1e-7 that is their best; TRAK and D-TRAK have a "
        "peak near 1e-4, and left of it about three fifths of it on validation: more than nothing, for here "
        "are fewer images than features."
    ),
}

POWERS = [10.0**b for b in range(-12, 3)]


def lines(session: Session) -> list[Line]:
    timesteps, n = session.counts(100)[0], len(session.bank.train)
    kernels = {"absolute_damping": [n * power for power in POWERS]}

    def curve(method, settings):
        return Line(row=f"`{method}`", column=f"{timesteps}", each=True, **settings)

    return [
        *(
            curve(method, influence(method, timesteps, {"absolute_damping": POWERS}))
            for method in ("k-fac", "ek-fac")
        ),
        *(curve(method, kernel(method, timesteps, kernels)) for method in ("trak", "d-trak")),
        *session.references(),
    ]


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    largest: dict[str, float] = {}
    for row in rows:
        largest[row["row"]] = max(largest.get(row["row"], 0), row["chosen"][0].get("absolute_damping", 0))

    def of_mean_loss(row):
        damping = row["chosen"][0]["absolute_damping"] * POWERS[-1] / largest[row["row"]]
        return {**row, "chosen": [{"absolute_damping": damping}]}

    scaled = [of_mean_loss(row) if row["swept"] else row for row in rows]
    return curves(Stretch(scaled, "absolute_damping", "λ of the mean loss"), log=10)


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_7"), doc=__doc__)
