"""The fields that gradient methods share: the gradient, its draws, its projection."""

from dataclasses import dataclass
from typing import NamedTuple

from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.disk.store import FeatureStore
from headwater.errors import check_at_least, unknown
from headwater.examples import Examples
from headwater.families.fields import check_types
from headwater.gradients.features import Features, features
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import PROJECTORS, AnyProjector, projector


class Passes(NamedTuple):
    """Passes through the model for one training image and one query: forward and backward, and forward
    alone."""

    train: int
    query: int
    train_forward: int = 0
    query_forward: int = 0


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The fields that every gradient method shares: the gradient and its draws.

    `timesteps`: a count or the steps themselves; `noises`: draws of ε at each timestep; `query_timesteps`:
    the queries' timesteps, if they differ; `noise`: each image's `own`, or one ε `shared` by all images at a
    timestep; `parameters`: a name pattern; `normalize`: scale every timestep's gradient to length 1 before
    averaging."""

    timesteps: int | tuple[int, ...] = 10
    strategy: str = "uniform"
    noises: int = 1
    measurement: str = "simple"
    query_timesteps: int | tuple[int, ...] | None = None
    noise: str = "own"
    parameters: str = "*"
    normalize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.check_gradient()

    def check_gradient(self) -> None:
        """Raise an OptionError if a field has a wrong type or is out of range."""
        check_types(self)
        measurement(self.measurement)
        self.draws()
        self.draws(query=True)

    def draws(self, *, query: bool = False) -> Draws:
        """The draws that the gradient of a training image, or of a query, is averaged over."""
        timesteps = self.timesteps if not query or self.query_timesteps is None else self.query_timesteps
        return Draws(timesteps, self.strategy, self.noises, self.seed, self.noise)

    def spec(self, *, query: bool = False) -> GradientSpec:
        """The gradient of a training image, or of a query. Training images have no path: `simple` replaces
        `trajectory`."""
        name = "simple" if self.measurement == "trajectory" and not query else self.measurement
        return GradientSpec(name, self.draws(query=query), self.parameters, self.normalize)

    def check_schedule(self, T: int) -> None:
        """Raise an OptionError if a schedule of T timesteps lacks one of the steps."""
        self.draws().check(T)
        if not self.along_path:
            self.draws(query=True).check(
                T, "timesteps" if self.query_timesteps is None else "query_timesteps"
            )

    def passes(self, T: int) -> Passes:
        """Passes through a model with T timesteps: K × noises gradients of each training image and query."""
        return Passes(self.draws().count, self.draws(query=True).count)

    def streams(self, q: int, parameters: int, memory: int) -> int:
        """How often the training images' gradients are computed for q queries and a model with this many
        parameters."""
        return 1

    @property
    def along_path(self) -> bool:
        """Whether queries need their sampler's path."""
        return self.measurement == "trajectory"


@dataclass(frozen=True, kw_only=True)
class GradientFeatures(Gradients):
    """Projected gradients. `projector`: gaussian, rademacher, sparse, two-sided or none; `k`: its width."""

    projector: str = "sparse"
    k: int = 4096

    def check_gradient(self) -> None:
        super().check_gradient()
        if self.projector not in PROJECTORS:
            raise unknown("projector", str(self.projector), PROJECTORS)
        check_at_least(1, self, "k")

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """Bytes in the store for n training images, q queries and a model with this many parameters: feature
        rows."""
        return 4 * (n + q) * (parameters if self.projector == "none" else self.k)

    def train(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[n, k]` of the training images."""
        self.check_schedule(require_model(model).schedule.T)
        return features(model, examples, self.spec(), self.projecting(), store)

    def query(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[q, k]` of the queries."""
        return features(model, examples, self.spec(query=True), self.projecting(), store)

    def projecting(self) -> AnyProjector:
        """The projector that the fields describe."""
        return projector(self.projector, self.k, self.seed)
