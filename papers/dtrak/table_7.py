"""Table 7: LDS (%) of retraining-based methods

S models, each trained on half of the data, subsets that no figure here is measured on. TRAK and D-TRAK: the
mean of the scores of S models, over 10 and 100 timesteps evenly spaced, one noise each; k = 4096; the damping
is chosen by cross-fitting. Empirical influence and datamodels look only at what the S models made of the
queries. The paper has this table for all its data sets (7, 8).
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import REFERENCES, Line, kernel
from papers._shared.session import Session

PAPER = (
    "More models help TRAK and D-TRAK alike; empirical influence and datamodels of 512 models stay below a "
    "single D-TRAK model."
)
HERE = {
    "digits-mini": (
        "More models help both alike, most with 10 timesteps (TRAK 26.1 to 51.9 on validation for S = 1 to "
        "8, D-TRAK 20.8 to 45.1). But 256 retrained models say 53 to 55, as much as a single TRAK model with "
        "100 timesteps (52.7) and more than a D-TRAK one (42.0); on generation (31 to 35) more than eight "
        "models of either. With 200 images a subset says much about each."
    ),
}

COLUMNS = "timesteps"

ENSEMBLES = (1, 2, 4, 8)
SUBSETS = (64, 128, 256, 512)


def ensemble(method: str, size: int, timesteps: int) -> Line:
    """The mean of the scores of `size` models."""
    return Line(
        row=f"`{method}`, S = {size}", column=f"{timesteps}", ensemble=size, **kernel(method, timesteps)
    )


def learned(method: str, size: int) -> Line:
    """A method that learns from `size` retrained models."""
    return Line(row=f"`{method}`, S = {size}", method=method, fields={"subsets": size})


def lines(session: Session) -> list[Line]:
    """At most as many models as the bank has learning subsets."""
    available = len(session.bank.learning_rows())
    averaged = [(method, size) for method in ("trak", "d-trak") for size in ENSEMBLES if size <= available]
    return [
        *(ensemble(*pair, timesteps) for pair in averaged for timesteps in session.counts(10, 100)),
        *(
            learned(method, size)
            for method in ("empirical-if", "datamodel")
            for size in SUBSETS
            if size <= available
        ),
        *session.references(),
    ]


def base(of: Line) -> Line | None:
    """Each is compared with a single D-TRAK model at as many timesteps; what has none, with 10."""
    return None if of.method in REFERENCES else ensemble("d-trak", 1, of.fields.get("timesteps", 10))


if __name__ == "__main__":
    main(Exhibit("dtrak", "table_7"), doc=__doc__)
