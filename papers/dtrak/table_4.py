"""Table 4: LDS (%) with different outcomes F and different constructions of φ

Down, the function of φ. Across, F, the function of the output that was measured on retrained models and that
scores are to predict: those that the bank has outcomes of. 100 timesteps evenly spaced, one noise each; k =
4096. The damping is chosen by cross-fitting.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = (
    "`simple` and `elbo` can be predicted, and rank the functions of φ alike; `square`, `l1`, `linf` cannot "
    "be predicted."
)
HERE = {
    "digits-mini": (
        "It holds for predicting: `simple` is predicted best by every function of φ, `elbo` second, and both "
        "rank the functions of φ alike. `square`, `l1` and `linf` can be predicted too, 5 to 26 on "
        "validation, though one seed hardly predicts the other there (8 to 11). But the loss itself is the "
        "best φ here."
    ),
}

FUNCTIONS = ("simple", "elbo", "square", "l1", "linf")


def lines(session: Session) -> list[Line]:
    outcomes = [
        name for name in FUNCTIONS if name in ("simple", *session.bank.info["recipe"]["measurements"])
    ]
    if len(outcomes) == 1:  # its one column is in Table 1
        return session.references()
    timesteps = session.counts(100)[0]
    table = [
        Line(
            row=f"φ of `{function}`",
            column=f"F = `{F}`",
            against=F,
            **kernel("d-trak", timesteps, measurement=function, k=4096),
        )
        for function in FUNCTIONS
        for F in outcomes
    ]
    return table + [line for F in outcomes for line in session.references(F, f"F = `{F}`")]


if __name__ == "__main__":
    main(Exhibit("dtrak", "table_4"), doc=__doc__)
