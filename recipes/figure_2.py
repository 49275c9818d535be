"""Figure 2: LDS (%) on generated pictures with the model at different checkpoints of its training

The generation half of figure 6. Timesteps evenly spaced, their number in parentheses; one noise each; k = 4096. The damping is
chosen by cross-fitting.
"""

import figure_6
from engine import main

PAPER = "D-TRAK is best at the last checkpoint, TRAK at an earlier one."

lines = figure_6.lines


def draw(rows):
    return figure_6.draw(rows, splits=("gen",))


if __name__ == "__main__":
    main("figure_2", doc=__doc__)
