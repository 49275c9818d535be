"""Figure 15: how constant is a measurement over retrained models?

The correlation over queries of a measurement under two models of different halves of the data, and of a half
and all of the data: means over pairs, Pearson's and Spearman's. Near 1, which queries are likely hardly
depends on the data left out. Beside it, how far the halves move a query's value against how far queries
differ: the median over queries of the standard deviation over subsets, over the standard deviation over
queries of the mean.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from headwater.linalg.rank import spearman
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import SPLITS
from papers._shared.session import Session

PAPER = (
    "The ELBO of generated pictures is nearly the same under models of other data (r above 0.99): it hardly "
    "tells them apart."
)
HERE = {
    "digits-mini": (
        "It holds, on validation and generation: under other halves of the data the ELBO of pictures "
        "correlates with 0.997, the loss with 0.94 to 0.95. The data moves a picture's ELBO by 3 % of what "
        "pictures differ by, its loss by a quarter."
    ),
}


def page(session: Session, exhibit: Exhibit) -> None:
    """A line for every measurement and split that the bank has outcomes of."""
    bank = session.bank
    names = list(dict.fromkeys(("simple", *bank.info["recipe"]["measurements"])))
    split, rows, seed = np.array(bank.queries.split), bank.rows(), bank.seeds()[0]
    full = np.load(bank.folder / "full.npy")[seed]
    heads = (
        "split | Pearson, two halves | Spearman, two halves | Spearman, a half and all | moved by the data"
    )
    lines = [f"| | {heads} |", "|---|---|---|---|---|---|"]
    for name in names:
        values = bank.outcomes(name)[rows][:, seed].astype(np.float64)
        for part in dict.fromkeys(split):
            seeds = values[:, split == part]
            pearson = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(seeds)])
            ranks = spearman(seeds[:-1], seeds[1:]).mean()
            with_full = f"{_with(full[split == part], seeds):.3f}" if name == "simple" else "–"
            moved = np.median(seeds.std(0)) / seeds.mean(0).std()
            cells = [
                f"`{name}`",
                SPLITS.get(part, part),
                f"{pearson:.3f}",
                f"{ranks:.3f}",
                with_full,
                f"{moved:.3f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    ground = f"Bank `{bank.folder.name}`: {len(rows)} subsets, one seed."
    exhibit.save_page(session.folder, [ground, "\n".join(lines), f"{exhibit.origin}."])


def _with(full: Float[np.ndarray, " q"], values: Float[np.ndarray, "m q"]) -> float:
    return float(spearman(np.broadcast_to(full.astype(np.float64), values.shape), values).mean())


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_15"), doc=__doc__)
