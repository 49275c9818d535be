"""Figure 9: LDS (%) under different λ

Above, λ of (ΦᵀΦ + λI)⁻¹ in the paper's units and on its grid; below, λ over the mean squared feature norm, which is comparable
between models and data. Timesteps evenly spaced, their number in parentheses; one noise each; k = 4096. Every point is measured on
all queries of a split, so the best of a curve is an oracle.
"""

from engine import Given, Line, kernel, main

ABSOLUTE = [a * 10.0**b for b in range(-2, 7) for a in (1, 2, 5)]
DIMENSIONLESS = [a * 10.0**b for b in range(-8, 3) for a in (1, 2, 5)]


def line(method: str, timesteps: int, field: str, grid: list[float]) -> Line:
    """One curve: a point for every λ of the grid."""
    more = kernel(method, timesteps) | {"swept": {field: grid}}
    return Line(row=f"`{method}`", column=f"{timesteps}", each=True, **more)


def lines(given: Given) -> list[Line]:
    curves = [(method, timesteps) for method in ("trak", "d-trak") for timesteps in given.counts(10, 100)]
    return [
        *(line(*curve, "absolute_damping", ABSOLUTE) for curve in curves),
        *(line(*curve, "damping", DIMENSIONLESS) for curve in curves),
        *given.references(),
    ]


def draw(rows):
    from drawing import curves

    return curves(rows, {"absolute_damping": "λ", "damping": "λ / mean squared feature norm"}, log=10)


if __name__ == "__main__":
    main("figure_9", doc=__doc__)
