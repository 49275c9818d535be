"""LDS under each image's own noise and under one noise shared by all, at 10 timesteps.

Run: .venv/bin/python benchmarks/noise.py [--bank digits] [--store FOLDER]. Writes
benchmarks/results/noise-BANK.json, row by row. Damping is chosen on half of a split's queries and reported
on the others; `ek-fac` and `k-fac` have λ = 1e-8 and nothing chosen. With 95 % intervals over subsets.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from environment import environment
from headwater.attribution.open import Machine, Models, Sources, open_experiment
from headwater.attribution.sweep import sweep
from headwater.disk.store import FeatureStore

DAMPINGS = [a * 10.0**b for b in range(-4, 1) for a in (1, 2, 5)]
ROWS: dict[str, tuple[str, dict[str, Any], list[float] | None]] = {
    "gradient": ("gradient", {}, None),
    "gradient-cos": ("gradient-cos", {}, None),
    "trak": ("trak", {}, DAMPINGS),
    "relative-if": ("relative-if", {}, DAMPINGS),
    "d-trak": ("d-trak", {}, DAMPINGS),
    "d-trak, avg": ("d-trak", {"measurement": "avg"}, DAMPINGS),
    "das": ("das", {}, DAMPINGS),
    "k-fac": ("k-fac", {}, None),
    "ek-fac": ("ek-fac", {}, None),
    "random": ("random", {}, None),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bank", default="digits")
    options.add_argument("--store", type=Path, help="a folder of features [default: none is kept]")
    given = options.parse_args()
    path = Path(__file__).parent / "results" / f"noise-{Path(given.bank).name}.json"
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(given.store or Path(folder))
        result: dict[str, Any] = {"environment": environment(), "rows": {}}
        for name in ROWS:
            for noise in ("own", "shared") if name != "random" else ("",):
                row = measured(given.bank, name, noise, store)
                result["rows"][f"{name}, {noise}".strip(", ")] = row
                words = "  ".join(f"{100 * part['lds']:5.1f}" for part in row.values())
                print(f"{name:14}{noise:8}{words}", flush=True)
                path.write_text(json.dumps(result, indent=1))


def measured(bank: str, name: str, noise: str, store: FeatureStore) -> dict[str, Any]:
    """The cross-fitted figures of a row on each split."""
    method, fields, dampings = ROWS[name]
    given = fields if name == "random" else fields | {"timesteps": 10, "noise": noise}
    experiment = open_experiment(method, given, Sources(), Models([]), bank, Machine())
    report = sweep(experiment, {"damping": dampings} if dampings else {}, store).as_json()
    return {
        split: {key: part[key] for key in ("queries", "lds", "low", "high", "chosen")}
        for split, part in report["splits"].items()
    }


if __name__ == "__main__":
    main()
