"""Sweeping fields of a method against a bank, all dampings from one fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from headwater.attribution.experiment import Run, attribute, check_queries, members
from headwater.bank import Bank
from headwater.diffusion.encoding import encoded
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.evaluate.lds import LDS, against
from headwater.evaluate.tune import Setting, setting_grid, tuned
from headwater.linalg.rank import Interval
from headwater.methods import learns, make, method_class
from headwater.scores import dense

KINDS = ("damping", "absolute_damping")


def sweep(experiment: Run, fields: Mapping[str, Sequence[Any]], store: FeatureStore) -> dict[str, Any]:
    """Every combination of `fields`, cross-fitted: chosen on one half of a split's queries, reported on the other."""
    bank = experiment.bank
    if bank is None:
        raise OptionError("A sweep needs a bank to compare with. Name one with --bank.")
    scores, learned = settings(experiment, fields, store), learned_from(experiment, fields)
    found = {setting: against(bank, values, learned) for setting, values in scores.items()}
    return {"bank": bank.folder.name, "method": experiment.method, "splits": cross_fitted(bank, found)}


def settings(
    experiment: Run, fields: Mapping[str, Sequence[Any]], store: FeatureStore
) -> dict[Setting, Float32[np.ndarray, "q n"]]:
    """Scores of the bank's queries under every combination of `fields`. All dampings, of either kind, share one fit."""
    assert experiment.bank is not None
    queries = experiment.bank.queries
    model = list(experiment.models) or None
    kind = next((name for name in KINDS if name in fields), None)
    for name, values in fields.items():
        if not values or (name in KINDS and None in values):
            raise OptionError(f"The values of {name} are {list(values)}; expected one or more{' numbers' * (name in KINDS)}.")
    others = {name: values for name, values in fields.items() if name != kind}
    found: dict[Setting, Float32[np.ndarray, "q n"]] = {}
    for setting in setting_grid(fields):  # whatever is wrong with one is told before the first is computed
        check_queries(make(experiment.method, {**experiment.fields, **dict(setting)}, experiment.bank), experiment.models, queries)
    for setting in setting_grid(others):
        of_one = {} if kind is None else {kind: fields[kind][0]}  # says in which unit all of them are
        method = make(experiment.method, {**experiment.fields, **dict(setting), **of_one}, experiment.bank)
        if kind is None:
            found[setting] = attribute(model, experiment.train, queries, method=method, store=store).values
            continue
        each = []
        for one, mine in members(model or [None], method):
            train, asked = (encoded(one, examples, store) for examples in (experiment.train, queries))
            index = mine.fit(one, train, store)
            each.append(dense(mine.score(one, index, asked, store, damping=[float(value) for value in fields[kind]])))
        blocks = np.mean(each, axis=0)
        found |= {(*setting, (kind, damping)): block for damping, block in zip(fields[kind], blocks, strict=True)}
    return found


def learned_from(experiment: Run, fields: Mapping[str, Sequence[Any]]) -> list[int]:
    """The bank's subsets that the method learns from under any of these settings: none may be compared with."""
    if not learns(method_class(experiment.method)):
        return []
    made = [make(experiment.method, {**experiment.fields, **dict(setting)}, experiment.bank) for setting in setting_grid(fields)]
    return sorted({row for method in made for row in method.learned(experiment.train).rows})


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `sweep` found, in words."""
    rows = []
    for split, row in found["splits"].items():
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        rows.append(f"{split}: LDS {row['lds']:.3f} {interval} on the other half of {row['queries']} queries")
        rows.append(f"  chosen: {' | '.join(_words(each) for each in row['chosen'])}")
        rows += [f"  {_words(entry['setting']):50}{entry['lds']:8.3f}  (all queries)" for entry in row["all"]]
    return rows


def _words(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def cross_fitted(bank: Bank, found: Mapping[Setting, LDS]) -> dict[str, Any]:
    """For each query split: the honest figure, what was chosen, and the figure of every setting."""
    split = np.array(bank.queries.split or ("all",) * len(bank.queries))
    rows = {}
    for name in dict.fromkeys(split.tolist()):
        queries = split == name
        best = tuned(found, queries)
        mean: Interval = best.mean(queries)
        rows[name] = {
            "queries": int(queries.sum()),
            "lds": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "chosen": [dict(each) for each in best.chosen],
            "oracle": dict(best.oracle),
            "all": [{"setting": dict(s), "lds": float(each.per_query[queries].mean())} for s, each in found.items()],
        }
    return rows
