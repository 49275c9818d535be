"""The figures on the digits bank, explained: scores from pictures alone, and the repeatability of gradients.

Run: .venv/bin/python benchmarks/account.py [--bank digits], after papers.dtrak.table_1. Writes
benchmarks/results/account.json.

1. Scores without a model: same label; a Gaussian of the pixel distance, exp(−‖x_q − x_i‖²/2h²), with h chosen
   on one half of a split's queries and reported on the other.
2. Repeatability: the rank correlation, over training images, of a query's scores from two seeds (other noise,
   other projection), for each measurement at the damping that Table 1 found best for it on validation.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from environment import environment
from headwater.attribution.attribute import attribute
from headwater.bank import Bank, open_bank
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import against
from headwater.evaluate.tune import tuned
from headwater.linalg.rank import spearman
from headwater.methods.dtrak import DTRAK
from headwater.methods.pixel import Pixel
from headwater.models import loading
from headwater.scores import dense

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).parent.parent / "docs" / "results"
WIDTHS = [2.0 ** (i / 2) for i in range(-2, 9)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bank", default="digits")
    arguments.add_argument("--timesteps", type=int, nargs="+", default=[10, 100])
    options = arguments.parse_args()
    bank = open_bank(options.bank)
    result = {
        "bank": bank.folder.name,
        "environment": environment(),
        "model_free": [entry for split in ("val", "gen") for entry in model_free(bank, split)],
        "repeatability": [
            repeated(bank, timesteps, name)
            for timesteps in options.timesteps
            for name in ("simple", "square", "avg", "l2")
        ],
    }
    (RESULTS / "account.json").write_text(json.dumps(result, indent=1))


def model_free(bank: Bank, split: str) -> list[dict[str, Any]]:
    """LDS of scores that are functions of pictures and labels."""
    queries = np.array(bank.queries.split) == split
    x, y = (examples.pixels().reshape(len(examples), -1) for examples in (bank.queries, bank.train))
    distance = np.square(x[:, None] - y[None]).sum(-1)
    pixel = Pixel()
    scores = {"pixel cosine": {(): dense(pixel.score(pixel.fit(None, bank.train), bank.queries))}}
    if split == "val":
        assert bank.queries.labels is not None and bank.train.labels is not None
        scores["same label"] = {(): (bank.queries.labels[:, None] == bank.train.labels).astype(np.float32)}
    scores["gaussian of pixel distance"] = {(("h", h),): np.exp(-distance / (2 * h**2)) for h in WIDTHS}
    rows = []
    for name, settings in scores.items():
        best = tuned(
            {setting: against(bank, values.astype(np.float32)) for setting, values in settings.items()},
            queries,
        )
        mean = best.mean(queries)
        rows.append(
            {
                "score": name,
                "split": split,
                **mean._asdict(),
                "chosen": [dict(setting) for setting in best.chosen],
            }
        )
        print(rows[-1], flush=True)
    return rows


def repeated(bank: Bank, timesteps: int, measurement: str) -> dict[str, Any]:
    """The agreement of two seeds of one method on a query's ranking of the training images."""
    damping = best_damping(bank, timesteps, measurement)
    model = loading.load(bank.folder / "model")
    with tempfile.TemporaryDirectory() as empty:
        one, two = (
            attribute(
                model,
                bank.train,
                bank.queries,
                method=DTRAK(measurement=measurement, timesteps=timesteps, damping=damping, seed=seed),
                store=FeatureStore(Path(empty)),
            ).values
            for seed in (0, 1)
        )
    agreement, split = spearman(one, two), np.array(bank.queries.split)
    row: dict[str, Any] = {"measurement": measurement, "timesteps": timesteps, "damping": damping}
    row |= {name: float(agreement[split == name].mean()) for name in ("val", "gen")}
    print(row, flush=True)
    return row


def best_damping(bank: Bank, timesteps: int, measurement: str) -> float:
    """The damping with the highest validation LDS in Table 1."""
    table = json.loads((TABLES / bank.folder.name / "table_1.json").read_text())
    row_key = ("val", timesteps, measurement)
    places = {
        (row["split"], row["fields"].get("timesteps"), row["fields"].get("measurement")): row
        for row in table["rows"]
    }
    return max(places[row_key]["all"], key=lambda entry: entry["lds"])["setting"]["damping"]


if __name__ == "__main__":
    main()
