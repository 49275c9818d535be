"""Table 5: LDS (%) under a budget of 100 gradients

(timesteps, noises at each); timesteps are the first ones (cumulative) or evenly spaced (uniform). The damping
is chosen by cross-fitting.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = (
    "Many timesteps are worth more than many noises; evenly spaced ones help TRAK, and make little "
    "difference to D-TRAK."
)
HERE = {
    "digits": (
        "It holds: many timesteps are worth more than many noises, and evenly spaced ones help TRAK, by 4.6 "
        "[1.9, 7.1] on validation and 7.0 [3.4, 10.3] on generation. D-TRAK is even better with the first "
        "hundred on validation, by 8.2 [5.8, 10.4], and as good on generation."
    ),
}

BUDGETS = ((10, 10), (20, 5), (50, 2), (100, 1))


def line(method: str, strategy: str, timesteps: int, noises: int) -> Line:
    """One way to spend the budget."""
    options = kernel(method, timesteps, noises=noises, strategy=strategy)
    return Line(row=f"`{method}`, {strategy}", column=f"({timesteps}, {noises})", **options)


def lines(session: Session) -> list[Line]:
    """TRAK and D-TRAK, both strategies, every budget."""
    ways = [(method, strategy) for method in ("trak", "d-trak") for strategy in ("cumulative", "uniform")]
    return [line(*way, *budget) for way in ways for budget in BUDGETS] + session.references()


def base(of: Line) -> Line | None:
    """Each is compared with 100 timesteps evenly spaced, the usual way to spend the budget."""
    return line(of.method, "uniform", 100, 1) if of.fields else None


if __name__ == "__main__":
    main(Exhibit("dtrak", "table_5"), doc=__doc__)
