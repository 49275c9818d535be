"""Figure 2: LDS (%) on generated pictures with the model at different checkpoints of its training

The generation half of figure 6. Timesteps evenly spaced, their number in parentheses; one noise each; k =
4096. The damping is chosen by cross-fitting.
"""

from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers.dtrak import figure_6

PAPER = "D-TRAK is best at the last checkpoint, TRAK at an earlier one."
HERE = {
    "digits": (
        "It holds with 100 timesteps, by little: on generation D-TRAK rises along training from 18.1 to "
        "21.2, TRAK falls from 19.5 to 17.8. With 10 timesteps both are a little below their best at the "
        "last checkpoint."
    ),
}

lines = figure_6.lines


def draw(rows):
    return figure_6.draw(rows, splits=("gen",))


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_2"), doc=__doc__)
