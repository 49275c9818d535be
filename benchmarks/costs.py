"""The cost of every method at its defaults: seconds and bytes on the digits bank, from an empty store.

Run: .venv/bin/python benchmarks/costs.py Writes benchmarks/results/costs.json, and
src/headwater/cost/methods.json, which `headwater methods` shows. `clip` uses the embedder of
papers/efficientnet.py. Methods that learn from retraining learn from 40 of the 64 halves."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from environment import environment
from headwater.attribution.attribute import Clock, scores_of_sets
from headwater.bank import Bank, open_bank
from headwater.disk.store import FeatureStore
from headwater.methods import METHODS, make, method_class, needs_bank
from headwater.models import loading
from headwater.retraining.queries import on_paths

HERE = Path(__file__).parent
FIELDS: dict[str, dict[str, Any]] = {"clip": {"embedder": "papers.efficientnet:EMBEDDER"}}


def main() -> None:
    sys.path.insert(0, str(HERE.parent))  # where papers/ is
    torch.set_num_threads(1)  # beside another process, two threads wait for each other
    machine, bank = environment(), open_bank("digits")
    model = loading.load(bank.folder / "model", checkpoints=4)
    paths = on_paths(bank)
    rows = {name: measured(name, paths if name == "journey-trak" else bank, model) for name in METHODS}
    result = {
        "bank": "digits",
        "images": len(bank.train),
        "queries": len(bank.queries),
        "environment": machine,
        "methods": rows,
    }
    result["parameters"] = sum(parameter.numel() for parameter in model.module.parameters())
    (HERE / "results" / "costs.json").write_text(json.dumps(result, indent=1) + "\n")
    shipped = {name: result[name] for name in ("bank", "images", "queries", "parameters", "methods")}
    shipped |= {name: machine[name] for name in ("processor", "cores")}
    (HERE.parent / "src" / "headwater" / "cost" / "methods.json").write_text(
        json.dumps(shipped, indent=1) + "\n"
    )


def measured(name: str, bank: Bank, model: Any) -> dict[str, Any]:
    """Seconds to fit and score, and bytes in the store afterwards."""
    fields = FIELDS.get(name, {}) | ({"subsets": tuple(range(40))} if needs_bank(method_class(name)) else {})
    method = make(name, fields, bank)
    with tempfile.TemporaryDirectory() as empty:
        store, clock = FeatureStore(Path(empty)), Clock()
        start = time.perf_counter()
        scores_of_sets([model], bank.train, [bank.queries], method, store, clock)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(empty).rglob("*") if path.is_file())
    row = {"seconds": round(seconds, 2), "stages": clock.seconds, "bytes": size, "queries": len(bank.queries)}
    print(name, row, flush=True)
    return row


if __name__ == "__main__":
    main()
