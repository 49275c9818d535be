"""Which method predicts the retraining of a bank that a GPU made? Scores on the card, LDS with intervals from
them.

Of scores only what LDS needs is kept: −Σ_{i∈A} τ[q, i] for every subset A of the bank, in DIR/quality.
Products are TF32. Dampings are chosen on one half of a split's queries and reported on the other. A stage
goes on: what one machine has not done, such as methods that need no card, another adds, and the table is of
all that is there."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from pictures import unpacked
from report import Report, Stage, peak_gib

import networks
from headwater.bank import Bank, open_bank
from headwater.disk.npz import write_examples
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import LDS, correlated, predicted
from headwater.evaluate.tune import tuned
from headwater.methods import make
from headwater.models import loading

DAMPINGS = tuple(a * 10.0**b for b in range(-4, 2) for a in (1, 2, 5))
WIDTH = 2048
MEMORY = 40 * 2**30


class Row(NamedTuple):
    """A method at fixed fields; `dampings` are chosen from. `needs`: seconds it may take on a card."""

    name: str
    method: str
    fields: Mapping[str, Any] = MappingProxyType({})
    dampings: Sequence[float] = ()
    needs: float = 30.0


def rows(stage: Stage) -> Iterator[Row]:
    """What is scored, the most wanted first."""
    K, wide = (2, {"k": 64}) if stage.tiny else (10, {"k": WIDTH, "projector": "two-sided"})
    yield Row("random", "random", needs=1)
    for how in ("dot", "cosine"):
        yield Row(f"pixel, {how}", "pixel", {"similarity": how}, needs=1)
    timed = {"timesteps": K, **wide}
    yield Row("trak", "trak", timed, DAMPINGS)
    yield Row("d-trak", "d-trak", timed, DAMPINGS)
    yield Row("d-trak, avg", "d-trak", timed | {"measurement": "avg"}, DAMPINGS)
    for name in ("gradient", "gradient-cos"):
        yield Row(name, name, timed, needs=5)
    for name in ("relative-if", "renorm-if"):
        yield Row(name, name, timed, DAMPINGS, needs=10)
    curved = {"timesteps": K, "curvature_timesteps": K}
    for name in ("k-fac", "ek-fac"):
        yield Row(f"{name}, nothing chosen", name, curved, needs=60)
    yield Row("das, error over as many timesteps", "das", timed | {"error_timesteps": K}, DAMPINGS, needs=40)
    yield Row("tracin, 2 checkpoints", "tracin", timed | {"checkpoints": 2}, needs=20)
    yield Row("gas, 2 checkpoints", "gas", timed | {"checkpoints": 2}, needs=5)
    if stage.tiny or not stage.cuda:
        yield Row("nda, nothing chosen", "nda", {"timesteps": 1} if stage.tiny else {})
    if not stage.tiny:
        yield Row(
            "d-trak, avg, 50 timesteps",
            "d-trak",
            timed | {"measurement": "avg", "timesteps": 50},
            DAMPINGS,
            needs=90,
        )


def run(stage: Stage) -> Report:
    report = Report(stage, "quality")
    only = stage.options["only"].split("+") if "only" in stage.options else None
    folder = Path(stage.options.get("bank", str(stage.out / "bank")))
    if not (folder / "train.npz").exists() and stage.data is not None:  # a bank travels without its pictures
        write_examples(folder / "train.npz", unpacked(stage.data / "train.npz"))
    bank = open_bank(folder)
    if stage.cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = False
    for row in rows(stage):
        if only is None or row.name in only or row.method in only:
            report.item(row.name, partial(score, stage, bank, row), 0.0 if stage.tiny else row.needs)
    report.items.pop("table", None)
    report.item("table", partial(table, stage, bank, report))
    return report


def score(stage: Stage, bank: Bank, row: Row) -> dict[str, Any]:
    """Scores of the bank's queries, summed over every subset, with the time they took."""
    memory = 2**28 if stage.tiny else MEMORY if stage.cuda else 2**30
    store = FeatureStore(Path(stage.options.get("store", str(stage.out / "store"))), memory=memory)
    method = make(row.method, row.fields)
    checkpoints = row.fields.get("checkpoints", 0)
    model = loading.load(bank.folder / "model", stage.device, checkpoints=checkpoints).within(memory)
    start = time.perf_counter()
    index = method.fit(model, bank.train, store)
    fitted = time.perf_counter()
    values = networks.scored(method, index, bank.queries, store, row.dampings or None)
    scored = time.perf_counter()
    sums = np.stack([predicted(of, bank.subsets) for of in (values if row.dampings else values[None])])
    path = place(stage, row.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, sums.astype(np.float32))
    passes = method.passes(model.schedule.T)._asdict() if hasattr(method, "passes") else {}
    return {
        "fit_s": round(fitted - start, 2),
        "score_s": round(scored - fitted, 2),
        "passes": passes,
        "fields": dict(row.fields),
        "dampings": list(row.dampings),
        "peak_gib": peak_gib(stage),
        "card": torch.cuda.get_device_name() if stage.cuda else None,
    }


def place(stage: Stage, name: str) -> Path:
    return stage.out / "quality" / f"{name.replace(', ', '-').replace(' ', '_')}.npy"


def table(stage: Stage, bank: Bank, report: Report) -> dict[str, Any]:
    """LDS of every row that is there, by split; those of several dampings cross-fitted."""
    finished = bank.rows()
    outcomes = bank.outcomes()[finished][:, bank.seeds()].mean(1, dtype=np.float64)
    split = np.array(bank.queries.split)
    lines = []
    for row in rows(replace(stage, device="cpu")):
        if not place(stage, row.name).exists():
            continue
        sums = np.load(place(stage, row.name))[:, finished]
        settings = [(("damping", value),) for value in row.dampings] or [()]
        known: dict[Any, LDS] = {
            of: correlated(one, outcomes) for of, one in zip(settings, sums, strict=True)
        }
        lines.append({"row": row.name} | {name: figures(known, split == name) for name in ("val", "gen")})
    print("\n".join(shown(line) for line in lines), flush=True)
    (stage.out / "quality-table.json").write_text(json.dumps(lines, indent=1))
    return {"halves": len(finished), "rows": len(lines), "lines": lines}


def figures(known: dict[Any, LDS], queries: np.ndarray) -> dict[str, Any]:
    """Mean LDS in percent with its interval over subsets, and what was chosen."""
    best = tuned(known, queries)
    mean = best.mean(queries)
    chosen = [dict(setting).get("damping") for setting in best.chosen]
    return {
        "lds": round(100 * mean.mean, 1),
        "low": round(100 * mean.low, 1),
        "high": round(100 * mean.high, 1),
        "chosen": chosen,
    }


def shown(line: dict[str, Any]) -> str:
    parts = (
        f"{name} {line[name]['lds']:5.1f} [{line[name]['low']:5.1f}, {line[name]['high']:5.1f}]"
        for name in ("val", "gen")
    )
    return f"{line['row']:36}{'   '.join(parts)}"
