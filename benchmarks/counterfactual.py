"""Does removing the images that a method ranks highest change the picture? 12 pictures, 20 and 100 of 1,000
images removed.

Run: .venv/bin/python benchmarks/counterfactual.py --out FOLDER [--bank digits --queries 12 --remove 2% 10%].
A second run resumes the first. Writes benchmarks/results/counterfactual-BANK.json; FOLDER holds the report
with the pictures. Fields were chosen on the bank's validation queries; the 12 pictures are generated."""

import argparse
import json
import os
from pathlib import Path

from environment import environment
from headwater.attribution.experiment import Experiment, run
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore, default_root
from headwater.evaluate.counterfactual import removal_counts
from headwater.models import loading
from headwater.pages.counterfactual import as_text, page
from headwater.retraining.counterfactual import collect_results, plan_removals, remove
from headwater.retraining.workplace import Workplace
from headwater.run import open_run
from headwater.workers import Pool

METHODS = {
    "digits": {
        "pixel": {},
        "trak": {"timesteps": 100, "damping": 0.5},
        "d-trak": {"measurement": "avg", "timesteps": 100, "damping": 0.001},
        "ek-fac": {"timesteps": 100},
        "nda": {},
    },
    "cifar2-small": {
        "d-trak": {"measurement": "avg", "timesteps": 10, "damping": 0.0005},
        "das": {"timesteps": 10, "damping": 0.0005},
    },
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--bank", default="digits")
    arguments.add_argument("--queries", type=int, default=12)
    arguments.add_argument("--remove", nargs="+", default=["2%", "10%"])
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = arguments.parse_args()
    bank = open_bank(options.bank)
    name, store = bank.folder.name, FeatureStore(default_root())
    for method, fields in METHODS[name].items():
        models = [] if method in ("pixel", "nda") else [loading.load(bank.folder / "model")]
        run(
            Experiment(method, fields, bank.train, bank.queries, models),
            options.out / method,
            store,
            force=True,
        )
    place = Workplace(Pool(options.workers), models=default_root() / "models")
    runs = [open_run(options.out / method) for method in METHODS[name]]
    removals = plan_removals(bank, runs, options.queries, removal_counts(options.remove, len(bank.train)))
    for count, total in remove(removals, options.out, place):
        print(count, total, flush=True)
    figures = collect_results(removals, options.out, place)
    result = {"fields": METHODS[name], "environment": environment(), **figures.as_json()}
    (Path(__file__).parent / "results" / f"counterfactual-{name}.json").write_text(
        json.dumps(result, indent=1, ensure_ascii=False)
    )
    print(as_text(figures), page(options.out), sep="\n")


if __name__ == "__main__":
    main()
