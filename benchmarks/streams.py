"""Does it matter that all subsets of a seed share initial weights, timesteps and noise?

Run: .venv/bin/python benchmarks/streams.py --bank FOLDER [--subsets 32]. Builds, or resumes, a bank of the
first halves, in which every model has a random stream of its own, and compares it with the same halves of the
shipped bank, seed 0. Writes benchmarks/results/streams.json: LDS of d-trak against either, how the two rank
the halves, and how much outcomes vary over halves."""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from environment import environment
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import difference, lds
from headwater.linalg.rank import spearman
from headwater.methods import make
from headwater.models import loading
from headwater.retraining.build import build
from headwater.retraining.recipes import recipe
from headwater.retraining.workplace import Workplace
from headwater.scores import dense
from headwater.workers import Pool

FIELDS = {
    "measurement": "avg",
    "timesteps": 100,
    "damping": 0.001,
}  # best on the digits bank's validation queries


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bank", type=Path, required=True)
    arguments.add_argument("--subsets", type=int, default=32)
    options = arguments.parse_args()
    halves = replace(recipe("digits"), common=False, subsets=options.subsets, seeds=1)
    for count, total in build(
        options.bank, halves, halves.data.open(), halves.held_out.open(), Workplace(Pool(os.cpu_count() or 1))
    ):
        print(count, total, flush=True)
    shipped, apart = open_bank("digits"), open_bank(options.bank)
    assert np.array_equal(shipped.subsets[: options.subsets], apart.subsets)
    measured = (
        apart.queries.hashes
    )  # queries of the same full model, equal up to a pixel that rounds differently
    places = {content: row for row, content in enumerate(shipped.queries.hashes)}
    common = [row for row, content in enumerate(measured) if content in places]
    rows = [places[measured[row]] for row in common]
    separate, first = apart.outcomes()[:, 0][:, common], shipped.outcomes()[: options.subsets, 0][:, rows]
    second = shipped.outcomes()[: options.subsets, 1][:, rows]
    model, method = loading.load(shipped.folder / "model"), make("d-trak", FIELDS)
    with tempfile.TemporaryDirectory() as empty:
        store = FeatureStore(Path(empty))
        values = dense(
            method.score(method.fit(model, shipped.train, store), shipped.queries.take(rows), store)
        )
    split = np.array(shipped.queries.split)[rows]
    splits = {
        name: figures(values, apart.subsets, (first, second, separate), split == name)
        for name in ("val", "gen")
    }
    result = {
        "subsets": options.subsets,
        "queries": len(rows),
        "fields": FIELDS,
        "environment": environment(),
        "splits": splits,
    }
    (Path(__file__).parent / "results" / "streams.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(splits, indent=1))


def figures(
    values: np.ndarray, subsets: np.ndarray, outcomes: tuple[np.ndarray, ...], chosen: np.ndarray
) -> dict[str, Any]:
    """LDS against either bank, agreements, and the standard deviation over halves as a fraction of the mean
    outcome."""
    first, second, separate = (part[:, chosen].astype(np.float64) for part in outcomes)
    scores = [lds(values[chosen], subsets, part) for part in (first, separate)]
    return {
        "lds_common": scores[0].mean()._asdict(),
        "lds_own": scores[1].mean()._asdict(),
        "common_minus_own": difference(*scores)._asdict(),
        "agreement_of_two_common_seeds": float(spearman(first.T, second.T).mean()),
        "agreement_of_own_with_a_common_seed": float(
            np.mean([spearman(separate.T, part.T).mean() for part in (first, second)])
        ),
        "variation_common": float((first.std(0) / first.mean(0)).mean()),
        "variation_own": float((separate.std(0) / separate.mean(0)).mean()),
    }


if __name__ == "__main__":
    main()
