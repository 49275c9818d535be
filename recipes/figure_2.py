"""Figure 2: LDS (%) on generated pictures with the model at different checkpoints of its training

The generation half of figure 6. Timesteps evenly spaced, their number in parentheses; one noise each; k = 4096. The damping is
chosen by cross-fitting.
"""

import figure_6
from engine import main

PAPER = "D-TRAK is best at the last checkpoint, TRAK at an earlier one."
HERE = {
    "digits": (
        "With 10 timesteps no checkpoint is clearly better than another; both methods are a little below their best at the last."
    ),
}

lines = figure_6.lines


def draw(rows):
    return figure_6.draw(rows, splits=("gen",))


if __name__ == "__main__":
    main("figure_2", doc=__doc__)
