"""Which method predicts retraining best on the digits bank? Every method × 10 and 100 timesteps × validation and generation.

Run: .venv/bin/python benchmarks/quality.py [--bank digits] [--store DIR]; with --seconds only the times are measured anew.
Writes benchmarks/results/quality.json and the README's table; for another bank quality-BANK.json and the table of its page.
Fields are chosen on one half of the queries and reported on the other. Times are of this machine, with an empty store.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headwater.bank import Bank, open_bank
from headwater.environment import environment
from headwater.evaluate.lds import LDS, against, ceiling, difference
from headwater.evaluate.tune import tuned
from headwater.experiment import Run
from headwater.linalg.rank import Interval
from headwater.models import unet
from headwater.store import FeatureStore
from headwater.sweep import settings

HERE = Path(__file__).parent
DAMPINGS = [a * 10.0**b for b in range(-4, 2) for a in (1, 2, 5)]
SWEPT: dict[str, dict[str, list[Any]]] = {
    "random": {},
    "pixel": {"similarity": ["cosine", "dot"]},
    "gradient": {"measurement": ["simple", "square"]},
    "gradient-cos": {"measurement": ["simple", "square"]},
    "trak": {"damping": DAMPINGS},
    "d-trak": {"measurement": ["square", "avg", "l1", "l2", "linf"], "damping": DAMPINGS},
}
MODEL_FREE = ("random", "pixel")
PAGES = {"digits": "README.md", "cifar2-small": "docs/cifar2-bank.md"}
PAIRS = [("d-trak", other) for other in ("trak", "pixel", "gradient-cos", "random")]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bank", default="digits")
    arguments.add_argument("--store", type=Path, help="keep features here (then seconds are not of an empty store)")
    arguments.add_argument("--timesteps", type=int, nargs="+", default=[10, 100])
    arguments.add_argument("--seconds", action="store_true", help="measure only the times anew, on a machine that is quiet now")
    given = arguments.parse_args()
    if given.seconds:
        return timed(open_bank(given.bank))
    machine, bank = environment(), open_bank(given.bank)  # the load is read before there is any of ours
    split = np.array(bank.queries.split)
    rows, best = [], {}
    for name, swept in SWEPT.items():
        for timesteps in (None,) if name in MODEL_FREE else given.timesteps:
            with tempfile.TemporaryDirectory() as empty:
                found, seconds = scored(bank, name, swept, timesteps, FeatureStore(given.store or Path(empty)))
            for which in ("val", "gen"):
                chosen = tuned(found, split == which)
                best[name, timesteps, which] = chosen.lds
                rows.append(
                    row(name, timesteps, which, chosen.mean(split == which), chosen.chosen, chosen.oracle, found, split) | seconds
                )
                print(name, timesteps, which, *(f"{x:.3f}" for x in chosen.mean(split == which)), chosen.chosen, flush=True)
    write(bank, rows, differences(best, split, given.timesteps), None if given.store else "empty store", machine)


def timed(bank: Bank) -> None:
    """One setting of every method anew from an empty store, for its seconds."""
    result = json.loads(results(bank.folder.name).read_text()) | {"environment_of_seconds": environment()}
    for row in result["rows"]:
        row.pop("seconds_of_sweep", None)
        if row["split"] == "val":
            one = {name: values[:1] for name, values in SWEPT[row["method"]].items()}
            with tempfile.TemporaryDirectory() as empty:
                _, seconds = scored(bank, row["method"], one, row["timesteps"], FeatureStore(Path(empty)))
        row["seconds"] = seconds["seconds"]
        print(row["method"], row["timesteps"], row["seconds"], flush=True)
    save(result)


def scored(
    bank: Bank, name: str, swept: dict[str, list[Any]], timesteps: int | None, store: FeatureStore
) -> tuple[dict[Any, LDS], dict[str, float]]:
    """LDS of every setting of a method, and the seconds for one setting (features of one measurement) and for all."""
    fields = {} if timesteps is None else {"timesteps": timesteps}
    models = [] if name in MODEL_FREE else [unet.load(bank.folder / "model")]
    experiment = Run(name, fields, bank.train, bank.queries, models, bank)
    one = {key: values[:1] for key, values in swept.items()}
    start = time.perf_counter()
    settings(experiment, one, store)
    single = time.perf_counter() - start
    found = {setting: against(bank, values) for setting, values in settings(experiment, swept, store).items()}
    return found, {"seconds": round(single, 2), "seconds_of_sweep": round(time.perf_counter() - start, 2)}


def row(name, timesteps, which, mean: Interval, chosen, oracle, found: dict[Any, LDS], split) -> dict[str, Any]:
    return {
        "method": name,
        "timesteps": timesteps,
        "split": which,
        "lds": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "chosen": [dict(each) for each in chosen],
        "oracle": dict(oracle),
        "all": [{"setting": dict(s), "lds": float(each.per_query[split == which].mean())} for s, each in found.items()],
    }


def differences(best: dict[Any, LDS], split: np.ndarray, counts: list[int]) -> list[dict[str, Any]]:
    """Paired differences in LDS, each method at its cross-fitted best."""
    rows = []
    for a, b in PAIRS:
        for timesteps in counts:
            for which in ("val", "gen"):
                other = best[b, None if b in MODEL_FREE else timesteps, which]
                mean = difference(best[a, timesteps, which], other, split == which)
                rows.append({"a": a, "b": b, "timesteps": timesteps, "split": which, **mean._asdict()})
    return rows


def write(bank: Bank, rows: list[dict[str, Any]], paired: list[dict[str, Any]], store: str | None, machine: dict[str, Any]) -> None:
    split = np.array(bank.queries.split)
    top = ceiling(bank)
    tops = {} if top is None else {which: top.mean(split == which)._asdict() for which in ("val", "gen")}
    result = {
        "bank": bank.folder.name,
        "subsets": len(bank.rows()),
        "seeds": len(bank.seeds()),
        "subsets_of_bank": bank.compared,
        "seeds_of_bank": bank.done().shape[1],
        "store": store,
        "environment": machine,
        "seed_agreement": tops,
        "rows": rows,
        "differences": paired,
    }
    save(result)


def save(result: dict[str, Any]) -> None:
    """Write the JSON, and from it the table of the bank's page."""
    results(result["bank"]).write_text(json.dumps(result, indent=1))
    page = HERE.parent / PAGES[result["bank"]]
    before, _, rest = page.read_text().partition("<!-- table -->")
    _, _, after = rest.partition("<!-- /table -->")
    page.write_text(f"{before}<!-- table -->\n{table(result)}\n<!-- /table -->{after}")


def results(bank: str) -> Path:
    return HERE / "results" / ("quality.json" if bank == "digits" else f"quality-{bank}.json")


def table(result: dict[str, Any]) -> str:
    """The page's table, in percent."""
    lines = ["| method | timesteps | validation | generation | seconds |", "|---|---|---|---|---|"]
    cell = lambda r: f"{100 * r['lds']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"  # noqa: E731
    for first, second in zip(result["rows"][::2], result["rows"][1::2], strict=True):
        seconds = f"{first['seconds']:.0f}" if result["store"] else "–"
        lines.append(f"| `{first['method']}` | {first['timesteps'] or '–'} | {cell(first)} | {cell(second)} | {seconds} |")
    tops = result["seed_agreement"]
    if tops:
        each = [f"{100 * t['mean']:.1f} [{100 * t['low']:.1f}, {100 * t['high']:.1f}]" for t in tops.values()]
        lines.append(f"| *one seed predicting the other* | – | {each[0]} | {each[1]} | – |")
    total = result["subsets_of_bank"], result["seeds_of_bank"]
    lines += [
        "",
        f"Measured on {result['subsets']} of the bank's {total[0]} halves, {result['seeds']} of its {total[1]} seeds each.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
