"""The figures of a counterfactual evaluation, and their file, `counterfactual.json`. Numpy only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.disk.files import written
from headwater.errors import DataError
from headwater.linalg.rank import Interval

FILE = "counterfactual.json"


class Quartiles(NamedTuple):
    """The quartiles of an effect over queries."""

    low: float
    median: float
    high: float


class EffectComparison(NamedTuple):
    """The mean difference of two effects on the same queries, and its p-value by Wilcoxon's test."""

    difference: Interval
    p: float
    above: int  # queries on which the first is above the second

    def as_json(self) -> dict[str, Any]:
        return {**self.difference._asdict(), "p": self.p, "above": self.above}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EffectComparison":
        difference = Interval(*(values[name] for name in Interval._fields))
        return cls(difference, values["p"], values["above"])


@dataclass(frozen=True, eq=False)
class RemovalEffect:
    """One effect of a removal on each query, and its comparison with random removal, unless it is that.

    In the effect's own unit: a distance of pixels in [−1, 1], a cosine, or the rise of a measurement.
    """

    values: Float[np.ndarray, " q"]
    quartiles: Quartiles
    against_random: EffectComparison | None = None

    def as_json(self) -> dict[str, Any]:
        record = {"each": self.values.tolist(), "quartiles": self.quartiles._asdict()}
        paired = self.against_random
        return record if paired is None else record | {"against_random": paired.as_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RemovalEffect":
        paired = values.get("against_random")
        return cls(
            np.asarray(values["each"], np.float64),
            Quartiles(*(values["quartiles"][name] for name in Quartiles._fields)),
            None if paired is None else EffectComparison.from_json(paired),
        )


@dataclass(frozen=True)
class MethodEffects:
    """The effects of one method's removals: for each number of images removed, each effect by its name.

    `signed`: whether the method's scores below 0 have a meaning.
    """

    signed: bool
    removed: Mapping[int, Mapping[str, RemovalEffect]]

    def as_json(self) -> dict[str, Any]:
        removed = {
            str(count): {name: effect.as_json() for name, effect in effects.items()}
            for count, effects in self.removed.items()
        }
        return {"signed": self.signed, "removed": removed}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MethodEffects":
        removed = {
            int(count): {name: RemovalEffect.from_json(effect) for name, effect in effects.items()}
            for count, effects in values["removed"].items()
        }
        return cls(values["signed"], removed)


@dataclass(frozen=True, kw_only=True)
class RemovalFigures:
    """The effects of all removals, by method, and how they were made.

    `train`: the number of training images; `queries`: the ids of the pictures; `removed`: the numbers of
    images; `steps`: of every training; `embedder`: the name of the one that compared pictures, if any did.
    """

    bank: str
    train: int
    queries: Sequence[str]
    removed: Sequence[int]
    embedder: str | None
    steps: int
    sampler: str
    seed: int
    methods: Mapping[str, MethodEffects]

    def as_json(self) -> dict[str, Any]:
        methods = {name: effects.as_json() for name, effects in self.methods.items()}
        return {entry.name: getattr(self, entry.name) for entry in fields(self)} | {"methods": methods}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RemovalFigures":
        """The inverse of `as_json`; further keys are ignored."""
        known: dict[str, Any] = {entry.name: values[entry.name] for entry in fields(cls)}
        known["methods"] = {
            name: MethodEffects.from_json(effects) for name, effects in known["methods"].items()
        }
        return cls(**known)


def write_figures(folder: Path, figures: RemovalFigures) -> None:
    """Write `counterfactual.json`."""
    with written(folder / FILE, "w") as file:
        json.dump(figures.as_json(), file, indent=1, ensure_ascii=False)


def read_figures(folder: Path) -> RemovalFigures:
    """The figures in `counterfactual.json`; damage is a DataError."""
    path = folder / FILE
    try:
        return RemovalFigures.from_json(dict(json.loads(path.read_text(encoding="utf-8"))))
    except KeyError as error:
        fault = f"it has no {error}"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        fault = str(error)
    raise DataError(
        f"Could not read {path}: {fault}.", hint="Run `headwater counterfactual` with this --out again."
    )
