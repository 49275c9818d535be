"""Table 1: LDS (%) with different constructions of φ

φ(x) = R ∇_θ m(x) with m the loss itself (`simple`: TRAK) or another function of the model's output (D-TRAK),
over 1 (t = 0), 10, 100 and 1000 timesteps evenly spaced, one noise each; k = 4096. The damping is chosen on
one half of a split's queries and reported on the other.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = (
    "`square`, `avg`, `l1` and `l2` in φ predict the loss better than the loss itself does; `elbo` and "
    "`linf` do not."
)
HERE = {
    "digits": (
        "Only `avg` is far above the loss, by 48.4 [45.1, 50.4], 21.4 [18.6, 23.8] and 10.5 [8.6, 12.6] on "
        "validation at 1, 10 and 100 timesteps: a single gradient at t = 0 does as well as a hundred (57.1 "
        "and 56.5). `square`, `l1` and `l2` are above the loss with one timestep and not with 100; with "
        "1,000 `square` is again, by 1.6 [0.1, 3.1] and on generation, where the paper looks, by 7.8 [3.8, "
        "11.8]. `elbo` and `linf` are not above the loss, as in the paper."
    ),
}

FUNCTIONS = ("simple", "elbo", "square", "avg", "l1", "l2", "linf")
COLUMNS = "timesteps"


def line(function: str, timesteps: int) -> Line:
    """φ of one function."""
    return Line(
        row=f"`{function}`",
        column=f"{timesteps}",
        **kernel("d-trak", timesteps, measurement=function, k=4096),
    )


def lines(session: Session) -> list[Line]:
    """Every function with 1, 10 and 100 timesteps; `simple` and `square` also with 1000."""
    counts, functions = session.counts(1, 10, 100, 1000), session.functions or FUNCTIONS
    several = [
        line(f, count) for f in functions for count in counts if count < 1000 or f in ("simple", "square")
    ]
    return several + session.references()


def base(line_of: Line) -> Line | None:
    """Each is compared with `simple` at as many timesteps."""
    return line("simple", line_of.fields["timesteps"]) if line_of.fields else None


if __name__ == "__main__":
    main(Exhibit("dtrak", "table_1"), doc=__doc__)
