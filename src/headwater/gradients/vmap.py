"""Per-example gradients by torch.func: slow, obvious, the oracle.

g(x) = ∇_θ mean over draws of m(f_θ(x_t, t), draw) (for a path: their sum): one row of p numbers per example,
its parameters in the model's own order."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from headwater.diffusion.denoiser import Condition, Denoiser, Parameters
from headwater.diffusion.draws import AnyDraws, Draw
from headwater.diffusion.measure import Measurement
from headwater.errors import NonFiniteError
from headwater.examples import Examples
from headwater.gradients.inputs import Drawn, divisor, drawn


def gradients(
    model: Denoiser,
    examples: Examples,
    measurement: Measurement,
    draws: AnyDraws,
    *,
    pattern: str = "*",
    batch: int = 16,
) -> Iterator[Float[Tensor, "b p"]]:
    """Gradients of `measurement` for all examples, `batch` at a time, in order.

    Memory: about batch × p numbers. Raises NonFiniteError with the example and timestep where a gradient is
    NaN or inf."""
    parameters = model.parameters(pattern)
    for start in range(0, len(examples), batch):
        rows = slice(start, min(start + batch, len(examples)))
        draw, condition = drawn(model, examples, rows, measurement, draws)
        rows_of_gradients = of_draws(model, measurement, draw, condition, parameters)
        if not torch.isfinite(rows_of_gradients).all():
            raise non_finite(model, measurement, draw, condition, parameters, examples.ids[rows])
        yield rows_of_gradients


def of_draws(
    model: Denoiser,
    measurement: Measurement,
    draw: Draw,
    condition: Condition,
    parameters: Parameters,
) -> Float[Tensor, "b p"]:
    """One gradient row per example: the mean (or sum) over that example's draws, flattened in the order of
    `parameters`."""

    def value(parameters: Parameters, draw: Draw, condition: Condition) -> Tensor:
        output = model.predict(draw.x_t, draw.t, condition, parameters)
        return measurement(output, draw, model.schedule).sum() / divisor(measurement, draw.t.shape[-1])

    # Fused attention has no batching rule; without no_grad, parameters left out of the pattern would drag a
    # graph along.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        row = vmap(grad(value), in_dims=(None, 0, 0))
        out = row(dict(parameters), draw, dict(condition))
    return torch.cat([out[name].flatten(1) for name in parameters], dim=1)


def non_finite(
    model: Denoiser,
    measurement: Measurement,
    draw: Draw,
    condition: Condition,
    parameters: Parameters,
    ids: tuple[str, ...],
) -> NonFiniteError:
    """The error that names the first example and timestep whose own gradient is not finite."""
    for i, name in enumerate(ids):
        for d, t in enumerate(draw.t[i].tolist()):
            one = Drawn(draw, condition).one(i, d)
            if not torch.isfinite(of_draws(model, measurement, *one, parameters)).all():
                return NonFiniteError(
                    f"The gradient is not finite for image {name} at timestep {t}, of weights in "
                    f"{str(model.dtype)[6:]}. Usual causes: half precision near t = 0, or weights that have "
                    "diverged. Use float32, or leave that timestep out."
                )
    return NonFiniteError(
        "A gradient is not finite, although each timestep's own is: the sum over timesteps overflows."
    )
