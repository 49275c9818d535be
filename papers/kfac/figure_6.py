"""Figure 6: what compression of the queries' gradients does to the scores of EK-FAC

Correlations of a query's compressed scores with those of whole gradients: the mean over queries, Pearson's
and Spearman's, and bytes a query. Left, compressed in eigen-coordinates over √(Λ + λ), as `ek-fac` does;
right, the preconditioned gradient of each parameter tensor, as the paper does. λ = 1e-8; 10 timesteps, one
noise each.
"""

import numpy as np

from headwater.curvature.compression import held
from headwater.curvature.products import pieces_of, query_sides
from headwater.linalg.damping import Damping
from headwater.linalg.rank import spearman
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.session import Session
from papers.kfac._whole import whole_gradients

PAPER = "Eight bits change almost nothing; low ranks lose much, for these gradients are not of low rank."
HERE = {
    "digits": (
        "Eight bits change nothing, as in the paper. In whitened eigen-coordinates four bits do not either "
        "(0.9999 and 0.9999, in the paper's way 0.965 and 0.957), and low ranks lose less, though more than "
        "bits."
    ),
}

KINDS = ("int8", "int4", "svd:16", "svd:8", "svd:4", "svd:1")
QUERIES = 50  # the first ones, as many of each split


def page(session: Session, exhibit: Exhibit) -> None:
    """A table: every kind, both ways."""
    bank, gradients = session.bank, whole_gradients(session, session.counts(10)[0])
    curvature, g = gradients.curvature, gradients.train
    split = np.array(bank.queries.split)
    chosen = np.concatenate([np.flatnonzero(split == name)[: QUERIES // 2] for name in dict.fromkeys(split)])
    v = gradients.of(bank.queries.take(chosen), gradients.method.draws())
    u, solved = curvature.coordinates(g), gradients.solved(v)
    exact = (solved.double() @ g.double().T).numpy()
    lines = [
        ["", "bytes a query", "Pearson", "Spearman", "Pearson, as in the paper", "Spearman, as in the paper"]
    ]
    for kind in ("float32", *KINDS):
        (side,) = query_sides(curvature, [v], [Damping(1e-8, absolute=True)], compression=kind)
        whitened = side.products(u)[:, :-1].T.numpy()
        direct = held(solved, pieces_of(curvature), kind).times(g).numpy()  # as in the paper
        size = sum(query.bytes for query in side.queries) / len(v)
        cells = [f"{value:.4f}" for scores in (whitened, direct) for value in _correlations(scores, exact)]
        lines.append([f"`{kind}`", f"{size:,.0f}", *cells])
    text = [f"| {' | '.join(line)} |" for line in lines]
    table = "\n".join([text[0], "|---" * len(lines[0]) + "|", *text[1:]])
    sizes = f"{len(bank.train):,} training images, {len(v)} queries, {curvature.p:,} parameters"
    ground = f"Bank `{bank.folder.name}`: {sizes}."
    exhibit.save_page(session.folder, [ground, table, f"{exhibit.origin}."])


def _correlations(scores: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's correlation, means over queries."""
    pearson = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(scores, exact, strict=True)])
    return float(pearson), float(spearman(scores.astype(np.float64), exact).mean())


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_6"), doc=__doc__)
