"""Figure 18: LDS (%) of TRAK with features kept in half precision

TRAK under different λ with features kept as float32 and as float16, 100 timesteps evenly spaced, one noise
each, k = 4096; the kernel is computed in float64 from either. Here a float16 row has an exponent of its own,
so that no entry under- or overflows. Every point is measured on all queries of a split.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "float16 features, as traker keeps them by default, lose most of TRAK's LDS."
HERE = {
    "digits": (
        "It does not hold where a row has an exponent of its own: float16 changes nothing at any λ. So "
        "float16's precision is enough for TRAK here; its range alone was not tried."
    ),
}

DAMPINGS = [a * 10.0**b for b in range(-8, 2) for a in (1, 3)]


def lines(session: Session) -> list[Line]:
    timesteps = session.counts(100)[0]
    swept = kernel("trak", timesteps, {"damping": DAMPINGS})
    dtypes = {"float32": None, "float16": "float16"}
    curves = [
        Line(row=f"`trak`, {name}", column=f"{timesteps}", each=True, dtype=dtype, **swept)
        for name, dtype in dtypes.items()
    ]
    return curves + session.references()


def draw(rows):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "damping", "λ / mean squared feature norm"), log=10)


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_18"), doc=__doc__)
