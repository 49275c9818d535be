"""How large a sum of scores is beside the change of the loss that it predicts, on a bank.

Run: .venv/bin/python benchmarks/sizes.py [--bank digits]. Writes benchmarks/results/sizes-BANK.json. For each
method with 10 timesteps: over the bank's subsets, the standard deviation of a query's predicted outcome (the
sum of the scores of the images left out) over that of its actual outcome; the median over queries, and where
80 % of them lie. A method that predicted losses would have 1, or less for what it does not know."""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from environment import environment
from headwater.attribution.attribute import attribute
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import predicted
from headwater.methods import make, method_class
from headwater.models import loading

METHODS = ("das", "relative-if", "d-trak", "trak", "ek-fac", "k-fac", "gradient", "gas", "random")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bank", default="digits")
    bank = open_bank(options.parse_args().bank)
    model, rows = loading.load(bank.folder / "model", checkpoints=4), list(bank.rows())
    actual = bank.outcomes()[rows].mean(axis=1).std(axis=0)
    result = {"bank": bank.folder.name, "environment": environment(), "methods": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in METHODS:
            fields = {"timesteps": 10} if "timesteps" in method_class(name).__dataclass_fields__ else {}
            store, method = FeatureStore(Path(folder)), make(name, fields)
            scores = attribute(model, bank.train, bank.queries, method=method, store=store).values
            ratio = predicted(scores, bank.subsets[rows]).std(axis=0) / actual
            low, middle, high = np.percentile(ratio, [10, 50, 90])
            result["methods"][name] = {"median": middle, "low": low, "high": high}
            print(f"{name:14}{middle:10.3g}  [{low:.3g}, {high:.3g}]", flush=True)
    path = Path(__file__).parent / "results" / f"sizes-{bank.folder.name}.json"
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
