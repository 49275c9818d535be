"""Figure 16: what a timestep's squared error counts for in the ELBO, and in the training loss

Both are Σ_t w_t E‖ε − ε̂‖²: w_t = 1 in the loss, β_t/(2α_t(1−ᾱ_t)) in the variational bound with σ_t² = β_t.
Each scaled to a mean of 1 over the bank's schedule. Below, how much of the whole weight lies before a
timestep.
"""

import numpy as np

from headwater.models import loading
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.session import Session

PAPER = "The ELBO is the loss with other weights on its timesteps: more on the first."
HERE = {
    "digits": (
        "37 % of the ELBO's weight lies before t = 100, where 10 % of the loss's does; the first timestep "
        "counts 51 times the mean."
    ),
}

BEFORE = (1, 10, 50, 100, 200, 500)


def page(session: Session, exhibit: Exhibit) -> None:
    """The curves, and the shares."""
    from papers._shared.drawing import weights

    schedule = loading.load(session.bank.folder / "model").schedule
    bound = schedule.beta / (2 * (1 - schedule.beta) * (1 - schedule.alpha_bar))
    named = {"ELBO": bound / bound.mean(), "loss": np.ones(schedule.T)}
    heads = ["", *(f"t < {t}" for t in BEFORE), "largest w", "smallest w"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, w in named.items():
        shares = [f"{100 * w[:t].sum() / w.sum():.1f} %" for t in BEFORE]
        lines.append(f"| {' | '.join([name, *shares, f'{w.max():.3g}', f'{w.min():.3g}'])} |")
    figure = exhibit.save_figure(weights(named, ("timestep", "weight")), session.folder)
    ground = f"Schedule of bank `{session.bank.folder.name}`."
    exhibit.save_page(session.folder, [ground, figure, "\n".join(lines), f"{exhibit.origin}."])


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_16"), doc=__doc__)
