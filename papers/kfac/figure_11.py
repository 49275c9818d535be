"""Figures 11 and 12: do losses at some timesteps tell of those at others?

Above, the rank correlation over subsets between what EK-FAC predicts for a query's loss within one stretch of
50 timesteps and that loss after retraining within another. Below, between retrained models' losses within two
stretches, one of each of two seeds: on the diagonal, what one retraining says of another. Means over queries,
in percent; a stretch is called by its first timestep. Random scores have 0 within 1 or 2. EK-FAC: 100
timesteps of the training images, ten of every stretch of the queries, λ = 1e-8.
"""

import numpy as np

from headwater.diffusion.draws import Draws
from headwater.evaluate.lds import predicted
from headwater.linalg.rank import spearman
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import SPLITS
from papers._shared.session import Session
from papers.kfac._whole import whole_gradients

PAPER = (
    "The loss at one timestep is predicted better by the influence on the loss at a higher timestep than by "
    "that on itself."
)
HERE = {
    "digits": (
        "It holds weakly. On validation the loss below timestep 50 is predicted a little better by the "
        "influence on the loss from 50 (29 against 26), that from 100 as well by 150 as by itself, and from "
        "250 a little better by 150. Losses from 400 are predicted best on both splits (58 and 52), those "
        "above 700 not at all, which another seed does not tell either."
    ),
}

STRETCHES = (0, 1, 2, 3, 5, 8, 12, 16, 19)
STEPS = 10  # of a query in a stretch


def page(session: Session, exhibit: Exhibit) -> None:
    """A matrix for every split, of predictions and of seeds."""
    from papers._shared.drawing import heat

    bank, gradients = session.bank, whole_gradients(session, session.counts(100)[0])
    outcomes, rows, seeds = bank.outcomes("per-timestep").astype(np.float64), bank.rows(), bank.seeds()
    T = gradients.model.schedule.T
    width = T // outcomes.shape[-1]
    subsets = bank.subsets[rows]
    predictions = []
    for stretch in STRETCHES:
        steps = tuple(stretch * width + width * i // STEPS for i in range(STEPS))
        v = gradients.solved(gradients.of(bank.queries, Draws(steps, seed=gradients.method.seed)))
        predictions.append(predicted((v @ gradients.train.T).numpy() / len(bank.train), subsets))
    split, rows_of_panels = np.array(bank.queries.split), []
    mean = outcomes[rows][:, seeds].mean(1)
    sides = [("EK-FAC", predictions, [mean[:, :, s] for s in STRETCHES])]
    if len(seeds) > 1:
        first, second = ([outcomes[rows][:, seed][:, :, s] for s in STRETCHES] for seed in seeds[:2])
        sides.append(("another seed", first, second))
    for name, predicted_losses, true_losses in sides:
        panels = []
        for part in dict.fromkeys(split):
            of_part = split == part
            matrix = [
                [spearman(p.T[of_part], t.T[of_part]).mean() for t in true_losses] for p in predicted_losses
            ]
            panels.append((f"{name}, {SPLITS.get(part, part)}", np.array(matrix)))
        rows_of_panels.append(panels)
    words = ("after retraining, loss from timestep", "predicted, loss from timestep")
    names = [str(s * width) for s in STRETCHES]
    matrices = heat(rows_of_panels, [(names, names)] * len(rows_of_panels), words)
    figure = exhibit.save_figure(matrices, session.folder)
    ground = f"Bank `{bank.folder.name}`: {len(rows)} subsets × {len(seeds)} seeds."
    exhibit.save_page(session.folder, [ground, figure, f"{exhibit.origin}."])


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_11"), doc=__doc__)
