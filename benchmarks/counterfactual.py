"""Do the images that a method holds to matter most change the picture when they go? 12 pictures, 20 and 100 of 1,000 removed.

Run: .venv/bin/python benchmarks/counterfactual.py --out FOLDER [--bank digits --queries 12 --remove 2% 10%]. It goes on where it
stopped.
Writes benchmarks/results/counterfactual-BANK.json; FOLDER holds the report with the pictures.
Fields were chosen on the bank's validation queries; pictures removed from are generated ones.
"""

import argparse
import json
import os
from pathlib import Path

from environment import environment
from headwater.attribution.experiment import Experiment, run
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore, default_root
from headwater.evaluate.counterfactual import counts
from headwater.models import loading
from headwater.pages.counterfactual import lines, page
from headwater.retraining.build import Place
from headwater.retraining.counterfactual import collected, planned, remove
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
    given = arguments.parse_args()
    bank = open_bank(given.bank)
    name, store = bank.folder.name, FeatureStore(default_root())
    for method, fields in METHODS[name].items():
        models = [] if method in ("pixel", "nda") else [loading.load(bank.folder / "model")]
        run(Experiment(method, fields, bank.train, bank.queries, models), given.out / method, store, force=True)
    place = Place(Pool(given.workers), models=default_root() / "models")
    what = planned(
        bank, [open_run(given.out / method) for method in METHODS[name]], given.queries, counts(given.remove, len(bank.train))
    )
    for done, total in remove(what, given.out, place):
        print(done, total, flush=True)
    found = collected(what, given.out, place)
    result = {"fields": METHODS[name], "environment": environment(), **found}
    (Path(__file__).parent / "results" / f"counterfactual-{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
    print("\n".join(lines(found)), page(given.out), sep="\n")


if __name__ == "__main__":
    main()
