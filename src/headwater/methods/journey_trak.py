"""Journey TRAK: Georgiev et al. 2023, arXiv:2312.06205, as the D-TRAK paper applies it to finished pictures
(appendix A.3)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Journey
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.families.gradients import Passes
from headwater.families.kernel import Kernel
from headwater.gradients.features import Features, features

STEPS = 50  # of the usual sampler: the number that a plan assumes


@dataclass(frozen=True, kw_only=True)
class JourneyTRAK(Kernel):
    """τ(q, i) = (1/S) Σ_s R ∇_θ ℓ_{t_s}(x̂₀(s))ᵀ (ΦᵀΦ + λI)⁻¹ φ(i),   φ(x) = R ∇_θ ℓ(x).

    The query's gradient is averaged over the S steps of its sampling path: at step s, the loss of the picture
    x̂₀ that the model predicted there, with new noise, at t_s. Training images, which have no path, keep
    TRAK's features. Only generated queries with a saved path can be scored."""

    title: ClassVar[str] = "Journey TRAK"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query_timesteps is not None or self.measurement == "trajectory":
            raise OptionError(
                "A journey's timesteps are those of the query's path; expected no query_timesteps, and no "
                "'trajectory'."
            )

    @property
    def along_path(self) -> bool:
        """Queries always need their path."""
        return True

    def query(self, model: Denoiser | None, examples: Examples, store: FeatureStore) -> Features:
        """Φ `[q, k]` of the queries' paths."""
        journey = Journey(self.noises, self.seed, noise=self.noise)
        spec = replace(self.spec(), draws=journey)
        return features(model, examples, spec, self.projecting(), store)

    def passes(self, T: int) -> Passes:
        """K × noises gradients of a training image; one for each step and noise of a query, and a forward
        pass for each x̂₀."""
        return Passes(super().passes(T).train, min(STEPS, T) * self.noises, query_forward=min(STEPS, T))
