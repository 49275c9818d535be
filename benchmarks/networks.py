"""Do two networks' losses rank the halves in the same order? Two banks with equal halves and held-out
queries.

Run: .venv/bin/python benchmarks/networks.py [BANK BANK]. Writes benchmarks/results/networks.json: Spearman's
correlation over the halves, the mean over held-out queries, between single models that differ in the seed, in
the network, or in both."""

import argparse
import json
from pathlib import Path

import numpy as np

from environment import environment
from headwater.bank import Bank, open_bank
from headwater.linalg.rank import spearman

BANKS = ("banks/digits-mini", "banks/digits-mini-attention")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("banks", nargs="*", default=BANKS)
    first, second = (open_bank(name) for name in arguments.parse_args().banks)
    m = min(len(first.subsets), len(second.subsets))
    if not np.array_equal(first.subsets[:m], second.subsets[:m]) or first.train.hashes != second.train.hashes:
        raise SystemExit("The banks have different halves; expected equal ones.")
    one, two = held_out(first)[:m], held_out(second)[:m]
    pairs = {
        "another seed": [(one[:, 0], one[:, seed]) for seed in range(1, one.shape[1])],
        "another network": [(one[:, 0], two[:, 0])],
        "another network and seed": [(one[:, seed], two[:, 0]) for seed in range(1, one.shape[1])],
    }
    correlation = {
        name: round(float(np.mean([spearman(a.T, b.T).mean() for a, b in seed_pairs])), 4)
        for name, seed_pairs in pairs.items()
    }
    banks = [first.folder.name, second.folder.name]
    result = {"banks": banks, "halves": m, "environment": environment(), "correlation": correlation}
    (Path(__file__).parent / "results" / "networks.json").write_text(json.dumps(result, indent=1))
    print(correlation)


def held_out(bank: Bank) -> np.ndarray:
    """Losses `[m, seeds, q]` of the held-out queries."""
    return bank.outcomes()[:, :, np.array(bank.queries.split) == "val"]


if __name__ == "__main__":
    main()
