"""Figure 6: LDS (%) with the model at different checkpoints of its training

All gradients are taken at one checkpoint; the last is the finished model. Timesteps evenly spaced, their
number in parentheses; one noise each; k = 4096. The damping is chosen by cross-fitting. The paper has this
figure for each of its data sets (6, 7 and 8).
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "D-TRAK is best at the last checkpoint, TRAK at an earlier one; more timesteps are better for both."
HERE = {
    "digits": (
        "With 100 timesteps D-TRAK is best at the last checkpoint (39.1 to 44.6 on validation), as in the "
        "paper, and TRAK hardly changes (44.7 to 45.9); with 10, TRAK falls from 22.5 to 19.3. More "
        "timesteps are better for both at every checkpoint."
    ),
}


def lines(session: Session) -> list[Line]:
    """TRAK and D-TRAK at every checkpoint of the bank."""
    steps = sorted(
        int(folder.name.removeprefix("step-")) for folder in session.bank.folder.glob("checkpoints/step-*")
    )
    return [
        Line(
            row=f"`{method}`",
            column=f"{timesteps}",
            x=step,
            model=f"checkpoints/step-{step}",
            **kernel(method, timesteps),
        )
        for method in ("trak", "d-trak")
        for timesteps in session.counts(10, 100)
        for step in steps
    ] + session.references()


def draw(rows, splits=()):
    from papers._shared.drawing import Stretch, curves

    return curves(Stretch(rows, "x", "training step of the checkpoint"), splits=splits)


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_6"), doc=__doc__)
