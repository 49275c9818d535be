"""Features: projected gradients of a measurement, φ(x) = R ∇_θ m(x), one row per example, through the store."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import AnyDraws, Draws, Journey
from headwater.diffusion.measure import canonical, measurement
from headwater.errors import DataError, OptionError, unknown
from headwater.gradients.forward import values
from headwater.gradients.projected import BLOCK, projected
from headwater.linalg.project import PROJECTORS, AnyProjector, projector
from headwater.store import FeatureStore

Features = Float32[np.ndarray, "n k"]
VERSION = 2  # of the numbers that given settings stand for

Result = TypeVar("Result")


class Passes(NamedTuple):
    """Passes through the model for one training image and one query: forward and backward, and forward alone."""

    train: int
    query: int
    train_forward: int = 0
    query_forward: int = 0


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The fields every gradient method shares: which gradient, over which draws.

    `timesteps`: a count or the steps themselves; `noises` per timestep; `query_timesteps`: other timesteps for the queries;
    `parameters`: name pattern of the parameters to use; `normalize`: give every timestep's gradient length 1 before they are
    averaged.
    """

    timesteps: int | tuple[int, ...] = 10
    strategy: str = "uniform"
    noises: int = 1
    measurement: str = "simple"
    query_timesteps: int | tuple[int, ...] | None = None
    parameters: str = "*"
    normalize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.check_gradient()

    def check_gradient(self) -> None:
        """Raise an OptionError where a field has a value out of range."""
        measurement(self.measurement)
        self.draws()
        self.draws(query=True)

    def draws(self, *, query: bool = False) -> Draws:
        """Over what the gradient of a training image, or of a query, is averaged."""
        other = self.query_timesteps if query else None
        return Draws(self.timesteps if other is None else other, self.strategy, self.noises, self.seed)

    def check_schedule(self, T: int) -> None:
        """Raise an OptionError where a schedule of T timesteps has not those asked for."""
        self.draws().check(T)
        if not self.along_path:
            self.draws(query=True).check(T, "timesteps" if self.query_timesteps is None else "query_timesteps")

    def passes(self, T: int) -> Passes:
        """Passes through the model, of one with T timesteps: K × noises gradients, of training images and of queries."""
        return Passes(self.draws().count, self.draws(query=True).count)

    def streams(self, q: int, parameters: int, memory: int) -> int:
        """How often the training images' gradients are taken for q queries of a model of so many parameters."""
        return 1

    @property
    def along_path(self) -> bool:
        """Whether the queries must have a sampler's path."""
        return self.measurement == "trajectory"


@dataclass(frozen=True, kw_only=True)
class GradientFeatures(Gradients):
    """Those gradients, projected. `projector`: gaussian, rademacher, sparse, two-sided or none; `k`: its width."""

    projector: str = "sparse"
    k: int = 4096

    def check_gradient(self) -> None:
        super().check_gradient()
        if self.projector not in PROJECTORS:
            raise unknown("projector", str(self.projector), PROJECTORS)
        if self.k < 1:
            raise OptionError(f"k is {self.k}; expected a whole number of 1 or more.")

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """Bytes in the store, of n training images and q queries, for a model of so many parameters: feature rows."""
        return 4 * (n + q) * (parameters if self.projector == "none" else self.k)

    def train(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[n, k]` of the training images. They have no sampler's path: under `trajectory` their own loss stands for it."""
        self.check_schedule(needed(model).schedule.T)
        own = "simple" if self.measurement == "trajectory" else self.measurement
        return features(model, examples, own, self.draws(), self.projecting(), store, self.parameters, self.normalize)

    def query(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[q, k]` of the queries."""
        draws = self.draws(query=True)
        return features(model, examples, self.measurement, draws, self.projecting(), store, self.parameters, self.normalize)

    def projecting(self) -> AnyProjector:
        """The projector of its name, width and seed."""
        return projector(self.projector, self.k, self.seed)


def features(
    model: Denoiser | None,
    examples: Examples,
    measurement_name: str,
    draws: AnyDraws,
    project: AnyProjector,
    store: FeatureStore,
    pattern: str = "*",
    normalize: bool = False,
) -> Features:
    """φ(x) = R ∇_θ m(x) for all examples, from the store or computed: p numbers an example are never kept, only k."""
    model = needed(model)
    check_fits(model, examples)
    settings = {
        "model": model.fingerprint,
        "measurement": canonical(measurement_name),
        "draws": asdict(draws),
        "projector": {"name": type(project).__name__, **asdict(project)},
        "parameters": pattern,
        "normalize": normalize,
        "dtype": str(model.dtype),
        "version": VERSION,
    }

    def compute(positions: list[int]) -> Iterator[Features]:
        what = Wanted(model, examples.take(positions), measurement_name, draws, project, pattern, normalize)
        if store.crew is None:
            yield from what.blocks(slice(None))
        else:
            parts = [slice(low, low + BLOCK) for low in range(0, len(positions), BLOCK)]
            yield from in_order(store.crew.work(_block, what, parts), parts)

    along = measurement_name == "trajectory" or isinstance(draws, Journey)
    return store.rows(settings, examples.path_keys if along else examples.keys, compute)


def losses(model: Denoiser | None, examples: Examples, draws: Draws, store: FeatureStore) -> Float32[np.ndarray, "n d"]:
    """The training loss of every draw of each example, from the store or computed: forward passes alone."""
    model = needed(model)
    check_fits(model, examples)
    settings = {"model": model.fingerprint, "losses": asdict(draws), "dtype": str(model.dtype), "version": VERSION}

    def compute(positions: list[int]) -> Iterator[Features]:
        yield from (part.of["simple"] for part in values(model, examples.take(positions), ["simple"], draws))

    return store.rows(settings, examples.keys, compute)


def needed(model: Denoiser | None) -> Denoiser:
    """The model, of a method that cannot do without one."""
    if model is None:
        raise OptionError("This method needs a model. Name one with --model FOLDER.")
    return model


class Wanted(NamedTuple):
    """The rows wanted: which gradient of which examples, projected how."""

    model: Denoiser
    examples: Examples
    measurement: str
    draws: AnyDraws
    project: AnyProjector
    pattern: str
    normalize: bool

    def blocks(self, rows: slice) -> Iterator[Features]:
        """The features of the examples at `rows`, block by block."""
        chosen = self.examples.take(np.arange(len(self.examples))[rows])
        what = measurement(self.measurement)
        found = projected(self.model, chosen, what, self.draws, self.project, pattern=self.pattern, normalize=self.normalize)
        yield from (block.float().cpu().numpy() for block in found)


def _block(what: Wanted, rows: slice) -> Features:
    return np.concatenate(list(what.blocks(rows)))


def in_order(results: Iterable[tuple[slice, Result]], parts: Sequence[slice]) -> Iterator[Result]:
    """The results of these parts in their order, whatever the order in which they come."""
    waiting: dict[int, Result] = {}
    following = 0
    for part, found in results:
        waiting[part.start] = found
        while following < len(parts) and parts[following].start in waiting:
            yield waiting.pop(parts[following].start)
            following += 1


def check_fits(model: Denoiser, examples: Examples) -> None:
    """Raise a DataError where these images cannot be shown to this model."""
    if examples.shape != model.pictures:
        (c, h, w), (mc, mh, mw) = examples.shape, model.pictures
        raise DataError(
            f"The images are {h}×{w} with {c} channel{'s' * (c > 1)}; the model takes {mh}×{mw} with {mc}. "
            f"Convert them, or for a folder of images use --resize."
        )
    if model.text is not None and examples.prompts is None:
        raise DataError(
            "The model is conditioned on prompts and the images have none. Give an .npz with `prompts`, a folder with captions in "
            "its metadata.jsonl, or a template with --caption."
        )
    if model.classes is not None:
        if examples.labels is None:
            raise DataError(
                f"The model is class-conditional ({model.classes} classes) and the images have no labels. "
                "Give an .npz with `labels`, or a folder with one subfolder per class."
            )
        if examples.labels.min() < 0 or examples.labels.max() >= model.classes:
            raise DataError(
                f"Labels run from {examples.labels.min()} to {examples.labels.max()}; "
                f"the model has classes 0 … {model.classes - 1}."
            )
