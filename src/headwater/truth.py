"""Runs against a bank: how well do scores predict what retraining really does? Numpy only: no model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from headwater.bank import Bank
from headwater.errors import DataError
from headwater.evaluate.lds import against, ceiling
from headwater.linalg.rank import Interval
from headwater.methods.random import Random
from headwater.runs import open_run
from headwater.scores import dense


def of_run(folder: Path, bank: Bank) -> dict[str, Any]:
    """LDS of a run folder's scores per query split. Its queries must be the bank's or some of them, in any order."""
    run = open_run(folder)
    n = len(run.scores.train_ids)
    same = n == len(bank.train) and all(np.array_equal(image, bank.train.images[row]) for row, image in run.pictures.items())
    if not same:
        raise DataError(
            f"The run {folder} has {n} training images that are not the bank's {len(bank.train)} (or the same in another order). "
            f"Give --train {bank.folder}/train.npz."
        )
    places = {content: row for row, content in enumerate(bank.queries.hashes)}
    here = [(places[content], row) for row, content in enumerate(run.queries.hashes) if content in places]
    if not here:
        raise DataError(
            f"None of the run's {len(run.queries)} queries is in the bank {bank.folder}. Give --query {bank.folder}/queries.npz."
        )
    learned_from = (run.info.get("fields") or {}).get("subsets") or []
    return ground_truth(part_of(bank, [place for place, _ in here]), run.scores.values[[row for _, row in here]], learned_from)


def part_of(bank: Bank, queries: Sequence[int]) -> Bank:
    """The bank as if it had only these queries."""
    return replace(bank, queries=bank.queries.take(list(queries)), chosen=tuple(queries))


def ground_truth(bank: Bank, values: Float32[np.ndarray, "q n"], leave_out: Sequence[int] = ()) -> dict[str, Any]:
    """LDS of scores for the bank's queries, per split, beside the random method and the noise ceiling.

    `ceiling` is how well one seed predicts another, ρ; `reachable` is √(Sρ/(1+(S−1)ρ)), what perfect scores would have against
    the mean of S seeds if seeds differ by independent noise.
    """
    found = against(bank, values, leave_out)
    chance = Random()
    index = chance.fit(None, bank.train)
    null = against(bank, dense(chance.score(None, index, bank.queries)), leave_out)
    top = ceiling(bank)
    split = np.array(bank.queries.split or ("all",) * len(bank.queries))
    splits = {}
    for name in dict.fromkeys(split.tolist()):
        chosen = split == name
        splits[name] = {"queries": int(chosen.sum()), **_named("lds", found.mean(chosen)), **_named("random", null.mean(chosen))}
        if top is not None:
            rho, seeds = top.mean(chosen).mean, len(bank.seeds())
            reachable = float(np.sqrt(max(0.0, seeds * rho / (1 + (seeds - 1) * rho))))
            splits[name] |= _named("ceiling", top.mean(chosen)) | {"reachable": round(reachable, 4)}
    return {
        "bank": bank.folder.name,
        "measurement": "simple",
        "subsets": len(bank.rows()) - len(set(leave_out)),
        "seeds": len(bank.seeds()),
        "splits": splits,
        "per_query": found.per_query.round(4).tolist(),
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `of_run` found, as a table of words."""
    rows = [f"{'split':8}{'queries':>8}{'LDS':>9}{'95 % interval':>20}{'random':>9}{'seed agreement':>17}"]
    for split, row in found["splits"].items():
        ceiling = f"{row['ceiling']:17.3f}" if "ceiling" in row else f"{'one seed':>17}"
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        rows.append(f"{split:8}{row['queries']:8d}{row['lds']:9.3f}{interval:>20}{row['random']:9.3f}{ceiling}")
    return rows


def _named(name: str, found: Interval) -> dict[str, float]:
    prefix = "" if name == "lds" else f"{name}_"
    return {name: round(found.mean, 4), f"{prefix}low": round(found.low, 4), f"{prefix}high": round(found.high, 4)}
