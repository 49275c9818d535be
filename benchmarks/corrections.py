"""LDS on the digits bank before and after numbers were mended, and of methods that no correction touches.

Run: .venv/bin/python benchmarks/corrections.py NAME, with the package of one version or another on the path;
NAME is what that version is called in benchmarks/results/corrections.json. Timesteps: 10 unless said.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from environment import environment
from headwater.attribution.attribute import attribute
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import against
from headwater.methods import make
from headwater.models import loading

ROWS = {
    "k-fac, reduce, damping 0.01": (
        "k-fac",
        {"variant": "reduce", "damping": 0.01, "curvature_timesteps": 2},
    ),
    "ek-fac, damping 0.01": ("ek-fac", {"damping": 0.01}),
    "ek-fac, reduce, damping 0.01": ("ek-fac", {"variant": "reduce", "damping": 0.01}),
    "k-fac, empirical": ("k-fac", {"fisher": "loss"}),
    "ek-fac, empirical": ("ek-fac", {"fisher": "loss"}),
    "ek-fac, empirical, averaged": ("ek-fac", {"fisher": "loss", "average": True}),
    "ek-fac, empirical, averaged, reduce": (
        "ek-fac",
        {"fisher": "loss", "average": True, "variant": "reduce"},
    ),
    "ek-fac, empirical, 100 timesteps": ("ek-fac", {"fisher": "loss", "timesteps": 100}),
    "ek-fac, empirical, averaged, 100 timesteps": (
        "ek-fac",
        {"fisher": "loss", "average": True, "timesteps": 100},
    ),
    "ek-fac, empirical, damping 0.01": ("ek-fac", {"fisher": "loss", "damping": 0.01}),
    "das": ("das", {}),
    "das, gaussian, k = 256": ("das", {"projector": "gaussian", "k": 256}),
    "das, two-sided": ("das", {"projector": "two-sided"}),
    "trak": ("trak", {}),
    "trak, absolute_damping 0.001": ("trak", {"absolute_damping": 0.001}),
    "d-trak": ("d-trak", {}),
    "relative-if": ("relative-if", {}),
    "gas": ("gas", {}),
    "gradient": ("gradient", {}),
    "k-fac": ("k-fac", {}),
    "k-fac, reduce": ("k-fac", {"variant": "reduce"}),
    "ek-fac": ("ek-fac", {}),
    "ek-fac, 100 timesteps": ("ek-fac", {"timesteps": 100}),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("version")
    options.add_argument("--store", type=Path, help="a folder of features [default: none is kept]")
    given = options.parse_args()
    path = Path(__file__).parent / "results" / "corrections.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    bank = open_bank("digits")
    split = np.array(bank.queries.split)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (method, fields) in ROWS.items():
            made = make(method, {"timesteps": 10} | fields)
            model = loading.load(bank.folder / "model", checkpoints=4)
            store = FeatureStore(given.store or Path(folder))
            scores = attribute(model, bank.train, bank.queries, method=made, store=store).values
            lds = against(bank, scores).per_query
            rows[name] = {part: float(lds[split == part].mean()) for part in ("val", "gen")}
            rows[name]["norm"] = float(np.linalg.norm(scores))
            print(name, rows[name], flush=True)
    result[given.version] = {"environment": environment(), "rows": rows}
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
