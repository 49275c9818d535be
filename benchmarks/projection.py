"""The cost of a projection in LDS: sparse and two-sided against dense Gaussian at equal k, on the digits
bank, paired.

Run: .venv/bin/python benchmarks/projection.py [--bank digits]. Writes benchmarks/results/projection.json. All
runs share their draws; only the projection's seed changes. For each projector and k the damping is the best
one, in the mean over seeds, on one half of a split's queries, and the figure is computed on the other half.
`difference` is to Gaussian of the same k; its interval is a paired bootstrap over the bank's subsets, of the
mean over seeds."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from environment import environment
from headwater.bank import Bank, open_bank
from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.evaluate.lds import LDS, against, difference
from headwater.evaluate.tune import tuned
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Dense, Identity, Sparse, TwoSided, project
from headwater.models import loading
from headwater.scores import dense

WIDTHS = [256, 512, 1024, 2048, 4096, 8192]
DAMPINGS = [a * 10.0**b for b in range(-4, 1) for a in (1, 3)]
MEASUREMENT, TIMESTEPS = "avg", 10  # the best of d-trak's on this bank's validation queries


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bank", default="digits")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    options = arguments.parse_args()
    bank, machine = open_bank(options.bank), environment()
    model = loading.load(bank.folder / "model")
    exact = [rows(model, bank, side, Identity()) for side in ("train", "queries")]
    split, results = np.array(bank.queries.split), []
    for k in options.widths:
        fitted = {
            name: cross_fitted(bank, model, exact, name, k, options.seeds)
            for name in ("gaussian", "sparse", "two-sided")
        }
        for name, best in fitted.items():
            for which, lds in best.items():
                chosen = split == which
                row = {"projector": name, "k": k, "split": which, **lds.mean(chosen)._asdict()}
                if name != "gaussian":
                    row["difference"] = difference(lds, fitted["gaussian"][which], chosen)._asdict()
                results.append(row)
                print(row, flush=True)
    unprojected = cross_fitted(bank, model, exact, "none", 0, 1)
    results += [
        {"projector": "none", "split": which, **lds.mean(split == which)._asdict()}
        for which, lds in unprojected.items()
    ]
    result = {
        "bank": bank.folder.name,
        "measurement": MEASUREMENT,
        "timesteps": TIMESTEPS,
        "seeds": options.seeds,
    }
    path = Path(__file__).parent / "results" / "projection.json"
    path.write_text(json.dumps(result | {"environment": machine, "rows": results}, indent=1))


def rows(model: Denoiser, bank: Bank, side: str, projector: Any) -> torch.Tensor:
    examples = bank.train if side == "train" else bank.queries
    return torch.cat(list(projected(model, examples, GradientSpec(MEASUREMENT, Draws(TIMESTEPS)), projector)))


def cross_fitted(
    bank: Bank, model: Denoiser, exact: list[torch.Tensor], name: str, k: int, count: int
) -> dict[str, LDS]:
    """For each split the cross-fitted LDS, the mean over projection seeds."""
    by_seed: list[dict[float, LDS]] = []
    for seed in range(count):
        if name == "two-sided":
            train, queries = (
                rows(model, bank, side, TwoSided(k, seed)).numpy() for side in ("train", "queries")
            )
        elif name == "none":
            train, queries = (side.numpy() for side in exact)
        else:
            flat = Dense(k, seed) if name == "gaussian" else Sparse(k, seed)
            train, queries = (project(flat, side).numpy() for side in exact)
        gram = Gram(train)
        blocks = dense(gram.scores(queries, [damping * gram.mean_square for damping in DAMPINGS]))
        by_seed.append(
            {damping: against(bank, scores) for damping, scores in zip(DAMPINGS, blocks, strict=True)}
        )
    settings = {(("damping", damping),): mean([seed[damping] for seed in by_seed]) for damping in DAMPINGS}
    split = np.array(bank.queries.split)
    return {which: tuned(settings, split == which).lds for which in ("val", "gen")}


def mean(by_seed: list[LDS]) -> LDS:
    """The mean over seeds, resampling by resampling."""
    return LDS(
        np.mean([lds.per_query for lds in by_seed], axis=0),
        lambda: np.mean([lds.bootstrap for lds in by_seed], axis=0),
    )


if __name__ == "__main__":
    main()
