"""Which gradient: the noun that features, projections and their place in the store have in common."""

from dataclasses import dataclass

from headwater.diffusion.draws import AnyDraws, Journey
from headwater.diffusion.measure import Measurement, measurement


@dataclass(frozen=True)
class GradientSpec:
    """∇_θ mean over `draws` of the measurement called `measurement`, for the parameters whose names match
    `pattern`.

    `normalize`: every timestep's gradient has length 1 before they are averaged.
    """

    measurement: str
    draws: AnyDraws
    pattern: str = "*"
    normalize: bool = False

    @property
    def function(self) -> Measurement:
        """The measurement itself."""
        return measurement(self.measurement)

    @property
    def along_path(self) -> bool:
        """Whether the examples must have a sampler's path."""
        return self.measurement == "trajectory" or isinstance(self.draws, Journey)
