"""Sweeping fields of a method against a bank, all dampings from one fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from headwater.attribution.attribute import attribute, check_paths, members
from headwater.attribution.experiment import Experiment, check_draws
from headwater.bank import Bank
from headwater.diffusion.encoding import encoded
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, once
from headwater.evaluate.lds import LDS, against
from headwater.evaluate.tune import Setting, setting_grid, tuned
from headwater.examples import Examples
from headwater.families.learned import RetrainedMethod
from headwater.families.protocol import Damped, Method
from headwater.linalg.damping import Damping
from headwater.linalg.rank import Interval
from headwater.methods import make, method_class, needs_bank
from headwater.scores import dense

KINDS = ("damping", "absolute_damping")


@dataclass(frozen=True, kw_only=True)
class TunedFigures:
    """The cross-fitted LDS of one split's queries, the setting chosen for each half, and every setting's LDS.

    `oracle`: the best setting on the very queries; like the figures of `settings` it is none to quote.
    """

    queries: int
    lds: Interval
    chosen: tuple[Setting, Setting]
    oracle: Setting
    settings: Mapping[Setting, float]

    def as_json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "lds": self.lds.mean,
            "low": self.lds.low,
            "high": self.lds.high,
            "chosen": [dict(setting) for setting in self.chosen],
            "oracle": dict(self.oracle),
            "all": [{"setting": dict(setting), "lds": lds} for setting, lds in self.settings.items()],
        }


@dataclass(frozen=True, kw_only=True)
class SweepFigures:
    """The figures of a sweep of one method against a bank, by split."""

    bank: str
    method: str
    splits: Mapping[str, TunedFigures]

    def as_json(self) -> dict[str, Any]:
        splits = {name: figures.as_json() for name, figures in self.splits.items()}
        return {"bank": self.bank, "method": self.method, "splits": splits}


def sweep(experiment: Experiment, fields: Mapping[str, Sequence[Any]], store: FeatureStore) -> SweepFigures:
    """Every combination of `fields`, cross-fitted: chosen on one half of a split's queries, reported on the
    other."""
    bank = experiment.bank
    if bank is None:
        raise OptionError("A sweep needs a bank to compare with.", hint="Name one with --bank.")
    store = replace(store, warn=once(store.warn))
    scores, learned = settings(experiment, fields, store), learned_from(experiment, fields)
    agreement = {setting: against(bank, values, learned) for setting, values in scores.items()}
    return SweepFigures(bank=bank.folder.name, method=experiment.method, splits=cross_fitted(bank, agreement))


def settings(
    experiment: Experiment, fields: Mapping[str, Sequence[Any]], store: FeatureStore
) -> dict[Setting, Float32[np.ndarray, "q n"]]:
    """Scores of the bank's queries under every combination of `fields`. All dampings, of either kind, share
    one fit."""
    assert experiment.bank is not None
    _check_settings(experiment, fields, experiment.bank)
    kind = next((name for name in KINDS if name in fields), None)
    grid_fields = {name: values for name, values in fields.items() if name != kind}
    scores: dict[Setting, Float32[np.ndarray, "q n"]] = {}
    for setting in setting_grid(grid_fields):
        if kind is None:
            scores[setting] = _scores_at(experiment, setting, experiment.bank.queries, store)
        else:
            blocks = _at_dampings(experiment, setting, kind, fields[kind], store)
            damped = [(*setting, (kind, value)) for value in fields[kind]]
            scores |= dict(zip(damped, blocks, strict=True))
    return scores


def _check_settings(experiment: Experiment, fields: Mapping[str, Sequence[Any]], bank: Bank) -> None:
    """Refuse a wrong setting before the first is computed."""
    for name, values in fields.items():
        if not values or (name in KINDS and None in values):
            raise OptionError(
                f"The values of {name} are {list(values)}; expected one or "
                f"more{' numbers' * (name in KINDS)}."
            )
    for setting in setting_grid(fields):
        method = _method(experiment, setting)
        check_paths(method, experiment.models, bank.queries)
        check_draws(method, bank, len(experiment.models))


def _method(experiment: Experiment, setting: Setting) -> Method:
    return make(experiment.method, {**experiment.fields, **dict(setting)}, experiment.bank)


def _heard_before(note: str) -> None:
    """Ignore a note: the experiment has it already."""


def _scores_at(
    experiment: Experiment, setting: Setting, queries: Examples, store: FeatureStore
) -> Float32[np.ndarray, "q n"]:
    model, method = list(experiment.models) or None, _method(experiment, setting)
    scores = attribute(model, experiment.train, queries, method=method, store=store, warn=_heard_before)
    return scores.values


def _at_dampings(
    experiment: Experiment, setting: Setting, kind: str, values: Sequence[float], store: FeatureStore
) -> Float32[np.ndarray, "λ q n"]:
    """Scores of the bank's queries at each damping, from one fit of each model; the mean over models."""
    assert experiment.bank is not None
    method = _method(experiment, (*setting, (kind, values[0])))
    dampings = [Damping(float(value), absolute=kind == "absolute_damping") for value in values]
    blocks = []
    for model, member in members(list(experiment.models) or [None], method, store.memory):
        assert isinstance(member, Damped)
        train, queries = (
            encoded(model, examples, store) for examples in (experiment.train, experiment.bank.queries)
        )
        blocks.append(dense(member.scores_at(member.fit(model, train, store), queries, dampings, store)))
    return np.mean(blocks, axis=0)


def learned_from(experiment: Experiment, fields: Mapping[str, Sequence[Any]]) -> list[int]:
    """The bank's subsets that the method learns from under any of these settings: none may be compared
    with."""
    if not needs_bank(method_class(experiment.method)):
        return []
    methods = [_method(experiment, setting) for setting in setting_grid(fields)]
    subsets = [
        method.learning_subsets(experiment.train) for method in methods if isinstance(method, RetrainedMethod)
    ]
    return sorted({row for rows, _ in subsets for row in rows})


def as_text(figures: SweepFigures) -> str:
    """The figures of a sweep in words."""
    rows = []
    for name, split in figures.splits.items():
        mean, low, high = split.lds
        rows.append(
            f"{name}: LDS {mean:.3f} [{low:.3f}, {high:.3f}] on the other half of {split.queries} queries"
        )
        rows.append(f"  chosen: {' | '.join(_words(setting) for setting in split.chosen)}")
        rows += [
            f"  {_words(setting):50}{lds:8.3f}  (all queries)" for setting, lds in split.settings.items()
        ]
    return "\n".join(rows)


def _words(setting: Setting) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting)


def cross_fitted(bank: Bank, agreement: Mapping[Setting, LDS]) -> dict[str, TunedFigures]:
    """For each query split: the honest figure, what was chosen, and the figure of every setting."""
    split = np.array(bank.queries.split or ("all",) * len(bank.queries))
    return {name: _tuned_figures(agreement, split == name) for name in dict.fromkeys(split.tolist())}


def _tuned_figures(agreement: Mapping[Setting, LDS], queries: Bool[np.ndarray, " q"]) -> TunedFigures:
    best = tuned(agreement, queries)
    return TunedFigures(
        queries=int(queries.sum()),
        lds=best.mean(queries),
        chosen=best.chosen,
        oracle=best.oracle,
        settings={setting: float(lds.per_query[queries].mean()) for setting, lds in agreement.items()},
    )
