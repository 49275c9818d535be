"""Figures 7 to 10: LDS (%) of influence functions, TRAK and D-TRAK under different λ, on one axis

λ in the units of the mean training loss: what TRAK and D-TRAK add to ΦᵀΦ is divided by the number of training images. 100
timesteps evenly spaced, one noise each; k = 4096. Every point is measured on all queries of a split, so the best of a curve is an
oracle.
"""

from engine import Given, Line, influence, kernel, main

PAPER = "K-FAC has a wide plateau below 1e-8; TRAK and D-TRAK have a peak, and fail left of it."
HERE = {
    "digits": (
        "It holds. K-FAC and EK-FAC have a plateau below 1e-7 that is their best; TRAK and D-TRAK have a peak near 1e-4, "
        "and left of it about three fifths of it on validation: more than nothing, for here are fewer images than features."
    ),
}

POWERS = [10.0**b for b in range(-12, 3)]


def lines(given: Given) -> list[Line]:
    timesteps, n = given.counts(100)[0], len(given.bank.train)
    kernels = {"absolute_damping": [n * each for each in POWERS]}
    return [
        *(
            Line(row=f"`{method}`", column=f"{timesteps}", each=True, **influence(method, timesteps, {"absolute_damping": POWERS}))
            for method in ("k-fac", "ek-fac")
        ),
        *(
            Line(row=f"`{method}`", column=f"{timesteps}", each=True, **kernel(method, timesteps, kernels))
            for method in ("trak", "d-trak")
        ),
        *given.references(),
    ]


def draw(rows):
    from drawing import Stretch, curves

    largest = {row["row"]: max(r["chosen"][0].get("absolute_damping", 0) for r in rows if r["row"] == row["row"]) for row in rows}
    scaled = [
        {**row, "chosen": [{"absolute_damping": row["chosen"][0]["absolute_damping"] * POWERS[-1] / largest[row["row"]]}]}
        if row["swept"]
        else row
        for row in rows
    ]
    return curves(Stretch(scaled, "absolute_damping", "λ of the mean loss"), log=10)


if __name__ == "__main__":
    main("kfac_figure_7", doc=__doc__)
