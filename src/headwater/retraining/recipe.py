"""Bank recipes: data, network, training, subsets, queries, measurements; by name or from `bank.json`.

`d-trak-…`: Zheng et al. 2023, arXiv:2311.00500, appendix A.2. `k-fac-…`: Mlodozeniec et al. 2024,
arXiv:2410.13850, appendix G, with what their code adds. LDS under one cannot be compared with LDS under the
other.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from headwater.data import open_examples
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import SAMPLERS
from headwater.errors import DataError, OptionError, Warn, check_at_least, to_warnings, unknown
from headwater.examples import Examples
from headwater.models.train import Recipe
from headwater.retraining.subsets import check_scheme

OUTCOMES = Draws(100, "stratified", 2, seed=20231101)  # a seed that attribution does not use

SIZES = {  # the number of images of each source that a recipe names
    "digits": 1000,
    "digits:val": 100,
    "cifar2": 5000,
    "cifar2:val": 1000,
    "cifar10": 50_000,
    "cifar10:val": 1000,
    "celeba": 5000,
    "celeba:val": 1000,
    "artbench2": 5000,
    "artbench2:val": 1000,
    "artbench5": 12_500,
    "artbench5:val": 1000,
}


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A source of images as `open_examples` takes it, their size, and their number (`first`).

    `caption`: a template of prompts for images without prompts.
    """

    name: str
    resize: int | None = None
    count: int | None = None
    caption: str | None = None

    def size(self, warn: Warn = to_warnings) -> int:
        """The number of images; known sources are not opened for it."""
        return self.count or SIZES.get(self.name) or len(self.open(warn))

    def open(self, warn: Warn = to_warnings) -> Examples:
        """The images."""
        examples = open_examples(self.name, resize=self.resize, caption=self.caption, warn=warn)
        return examples if self.count is None else first(examples, self.count)


def first(examples: Examples, count: int) -> Examples:
    """The first `count` images, or of labelled ones the first of each class, to within one image."""
    if count > len(examples):
        raise DataError(f"There are {len(examples)} images; expected at least {count}.")
    if examples.labels is None:
        return examples.take(np.arange(count))
    place = np.zeros(len(examples), np.int64)  # of each image among its class
    for label in np.unique(examples.labels):
        members = examples.labels == label
        place[members] = np.arange(members.sum())
    return examples.take(np.sort(np.lexsort((examples.labels, place))[:count]))


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """LoRA for a pipeline (`base`: its folder, or its name on the hub), and the guidance of its pictures.

    Defaults: Zheng et al. (D-TRAK), appendix A.1.
    """

    base: str
    rank: int = 128
    guidance: float = 7.5

    def __post_init__(self) -> None:
        check_at_least(1, self, "rank")
        if not math.isfinite(self.guidance):
            raise OptionError(f"guidance is {self.guidance}; expected a finite number.")


@dataclass(frozen=True, kw_only=True)
class BankRecipe:
    """Everything that decides a bank.

    It trains a network of its own (`model`: keyword arguments of UNet2DModel), or `adapters`. A model of all
    data and `subsets` × `seeds` models of subsets (`scheme`: half, stratified, bernoulli, group; `part` of
    the images) are trained and measured on `held_out` and on `generated` pictures of the first model.
    `learning` × `learning_seeds` further models are for methods that learn from retraining; they are never
    compared with. `subset_steps`: the training steps of a subset's model, instead of epochs. `common`: models
    of one seed share initial weights, timesteps and noise. `outcome_draws` are common to all models of the
    bank, and attribution never uses their seed.
    """

    data: DataSource
    held_out: DataSource
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Recipe
    subset_steps: int | None = None
    scheme: str = "half"
    part: float = 0.5
    subsets: int = 64
    seeds: int = 2
    learning: int = 0
    learning_seeds: int = 1
    common: bool = True
    generated: int = 100
    sampler: str = "ddim"
    sample_steps: int = 50
    sample_seed: int = 0
    measurements: tuple[str, ...] = ("simple", "elbo")
    outcome_draws: Draws = OUTCOMES
    adapters: Adapters | None = None

    def __post_init__(self) -> None:
        if bool(self.model) == (self.adapters is not None):
            raise OptionError(
                "A bank's recipe has a network of its own or adapters of a pipeline; expected one of the two."
            )
        check_scheme(self.scheme, self.part)
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        check_at_least(1, self, "subsets", "seeds", "generated", "learning_seeds", "sample_steps")
        check_at_least(0, self, "learning")
        _ = self.subset_training  # its own checks
        for name in self.measurements:
            if measurement(name) is measurement("trajectory"):
                raise OptionError(
                    "A bank's queries have no sampler's path; choose other measurements than 'trajectory'."
                )

    @property
    def subset_training(self) -> Recipe:
        """The training of a subset's model."""
        return self.training if self.subset_steps is None else replace(self.training, steps=self.subset_steps)

    @property
    def guidance(self) -> float:
        """The guidance of the generated queries; 1: none."""
        return 1.0 if self.adapters is None else self.adapters.guidance

    def fields(self) -> dict[str, Any]:
        """The recipe as JSON-ready values, without adapters and captions that are None."""
        values = json.loads(json.dumps(asdict(self) | {"outcome_draws": self.outcome_draws.manifest()}))
        for part, name in (
            (values, "adapters"),
            (values["data"], "caption"),
            (values["held_out"], "caption"),
        ):
            if part[name] is None:
                del part[name]
        return values


PARTS: Mapping[str, Any] = {  # the fields of a recipe that are records of their own
    "data": DataSource,
    "held_out": DataSource,
    "training": Recipe,
    "outcome_draws": Draws,
    "adapters": Adapters,
}


def from_fields(values: Mapping[str, Any]) -> BankRecipe:
    """The inverse of `BankRecipe.fields`."""
    known = {entry.name for entry in fields(BankRecipe)}
    if not known >= values.keys() or not PARTS.keys() - {"adapters"} <= values.keys():
        raise DataError(
            f"The bank's recipe has fields {', '.join(sorted(values))}; expected {', '.join(sorted(known))}."
        )
    try:
        read = {
            name: kind(**_tuples(values[name]))
            for name, kind in PARTS.items()
            if values.get(name) is not None
        }
    except TypeError as error:
        raise DataError(f"The bank's recipe is of another version: {error}.") from error
    rest = {name: value for name, value in values.items() if name not in PARTS}
    return BankRecipe(**{**rest, "measurements": tuple(rest.get("measurements", ("simple", "elbo")))}, **read)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
