"""Measurements: functions of (network output, draws, schedule) with one number per draw. A picture's value is
the mean over draws, or for a path (`trajectory`) the sum over its steps.

All are loss-like: a smaller value fits the picture better. Formulas: Zheng et al., D-TRAK, arXiv:2311.00500,
section 3. `d` below is the number of pixel values; ε̂ and the raw output are the same for a noise-predicting
model.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.diffusion.draws import Draw
from headwater.diffusion.schedule import Flow, Schedule
from headwater.errors import OptionError, unknown

Measurement = Callable[[Tensor, Draw, Schedule], Tensor]
PIXEL_AXES = (-3, -2, -1)


def simple(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """‖target − output‖²/d: the training loss (equation 2), in the model's target (ε, v or x)."""
    return (output - schedule.target(draw.x, draw.noise, draw.t)).square().mean(PIXEL_AXES)


def elbo(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """β_t/(2α_t(1−ᾱ_t)) · ‖ε − ε̂‖²/d: the variational bound's weights (equation 1 with σ_t² = β_t)."""
    _of_a_diffusion(schedule, "elbo")
    _, epsilon = schedule.picture_and_noise(output, draw.x_t, draw.t)
    weight = schedule.at("elbo_weight", draw.t, output)
    return weight[..., 0, 0, 0] * (draw.noise - epsilon).square().mean(PIXEL_AXES)


def square(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """‖output‖²/d: D-TRAK's measurement. No likelihood: it ranks training images for a query, not queries."""
    return output.square().mean(PIXEL_AXES)


def avg(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """The mean of the output."""
    return output.mean(PIXEL_AXES)


def l1(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """‖output‖₁ (a sum over pixels)."""
    return output.abs().sum(PIXEL_AXES)


def l2(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """‖output‖₂."""
    return output.square().sum(PIXEL_AXES).sqrt()


def linf(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """‖output‖_∞."""
    return output.abs().amax(PIXEL_AXES)


def interpolation(
    output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule, *, eta: float
) -> Float[Tensor, "*b"]:
    """η square + (1−η)(simple − square), section 3.2: η = ½ is simple/2, η = 1 is square.

    Its gradient is 2(η output − (1−η) target)ᵀ∇output / d.
    """
    squared = square(output, draw, schedule)
    return eta * squared + (1 - eta) * (simple(output, draw, schedule) - squared)


def trajectory(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """Σ_t ‖x_{t'} − μ_θ(x_t, t)‖²/(2σ_t²) along a stored DDPM path: −log p of the path, up to a constant.

    σ_t² = (1−ᾱ_{t'})/(1−ᾱ_t) · (1−ᾱ_t/ᾱ_{t'}), the sampler's own variance. Returned is one step's term, a sum
    over pixels; a picture's value is the sum over steps. DDIM with η = 0 has no density. The sampler clips
    x̂₀, and μ_θ here is not clipped: where it was, mostly near t = 0, the value is somewhat too large.
    """
    _of_a_diffusion(schedule, "trajectory")
    # in double: 1 − α is tiny near t = 0
    alpha_bar = schedule.table("alpha_bar", output.device, torch.float64)
    now, then = alpha_bar[draw.t], alpha_bar[draw.then]
    alpha = now / then
    variance = (1 - then) / (1 - now) * (1 - alpha)
    weight = (1 - alpha).square() / (2 * variance * alpha * (1 - now))
    _, epsilon = schedule.picture_and_noise(output, draw.x_t, draw.t)
    return weight.to(output) * (draw.noise - epsilon).square().sum(PIXEL_AXES)


def _of_a_diffusion(schedule: Schedule, name: str) -> None:
    if isinstance(schedule, Flow):
        raise OptionError(
            f"measurement is '{name}', which weights steps by β_t; a flow model has none. Use simple, "
            "square, l1 or l2."
        )


def pseudo(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """√(2/d) ⟨output, η⟩, η the noise of `PseudoTargets`: E[∇∇ᵀ] = Jᵀ(2/d)J, Gauss–Newton's of `simple`.

    Equation 10 of arXiv:2410.13850 as printed lacks the ½ of its appendix B, and sums over pixels.
    """
    return (2 / output.shape[PIXEL_AXES[0] :].numel()) ** 0.5 * (output * draw.noise).sum(PIXEL_AXES)


def simple_sum(output: Float[Tensor, "*b c h w"], draw: Draw, schedule: Schedule) -> Float[Tensor, "*b"]:
    """√d · `simple`: E[∇∇ᵀ] is d times that of the mean loss, the empirical Fisher of the loss as a sum over
    pixels in the units of the mean (equation 11 of arXiv:2410.13850 with its equation 2)."""
    return output.shape[PIXEL_AXES[0] :].numel() ** 0.5 * simple(output, draw, schedule)


MEASUREMENTS: dict[str, Measurement] = {
    "simple": simple,
    "loss": simple,
    "elbo": elbo,
    "square": square,
    "avg": avg,
    "l1": l1,
    "l2": l2,
    "linf": linf,
    "trajectory": trajectory,
}


def measurement(name: str) -> Measurement:
    """The measurement called `name`; `eta:0.3` is the interpolation at η = 0.3."""
    if name.startswith("eta:"):
        try:
            eta = float(name.removeprefix("eta:"))
        except ValueError:
            eta = np.nan
        if not 0 <= eta <= 1:
            raise OptionError(
                f"measurement is '{name}'; expected eta:NUMBER with a number from 0 to 1, such as eta:0.3."
            )
        return partial(interpolation, eta=eta)
    if name not in MEASUREMENTS:
        raise unknown("measurement", name, [*MEASUREMENTS, "eta:0.3"])
    return MEASUREMENTS[name]


def canonical(name: str) -> str:
    """The one name of a measurement: `loss` is `simple`, `eta:0.30` is `eta:0.3`."""
    if name.startswith("eta:"):
        return f"eta:{float(name.removeprefix('eta:')):g}"
    return "simple" if name == "loss" else name
