"""The fields that gradient methods share: which gradient, over which draws, projected how."""

from dataclasses import dataclass
from typing import NamedTuple

from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, unknown
from headwater.examples import Examples
from headwater.gradients.features import Features, features
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import PROJECTORS, AnyProjector, projector


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

    def spec(self, *, query: bool = False) -> GradientSpec:
        """The gradient of a training image, or of a query. Training images have no path: `simple` replaces `trajectory`."""
        name = "simple" if self.measurement == "trajectory" and not query else self.measurement
        return GradientSpec(name, self.draws(query=query), self.parameters, self.normalize)

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
        """Φ `[n, k]` of the training images."""
        self.check_schedule(require_model(model).schedule.T)
        return features(model, examples, self.spec(), self.projecting(), store)

    def query(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[q, k]` of the queries."""
        return features(model, examples, self.spec(query=True), self.projecting(), store)

    def projecting(self) -> AnyProjector:
        """The projector of its name, width and seed."""
        return projector(self.projector, self.k, self.seed)
