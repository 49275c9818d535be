"""The exact Gauss–Newton matrix of a small model: slow, obvious, the oracle of K-FAC and EK-FAC.

G = mean over examples and draws of Jᵀ (2/d) J, with J the Jacobian of the network's d outputs: the Hessian of
the mean training loss where the network is linear in its parameters. (Mlodozieniec et al. 2025,
arXiv:2410.13850, equation 9, for losses that are means over pixels.)"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, func
from torch.nn.attention import SDPBackend, sdpa_kernel

from headwater.diffusion.denoiser import Condition, Denoiser, Parameters
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.gradients.inputs import drawn

Product = tuple[Tensor, Callable[..., Any]]

LARGEST = 8192  # parameters of a matrix that is built in full


def ggn(
    model: Denoiser, examples: Examples, draws: Draws, *, pattern: str = "*", batch: int = 1
) -> Float[Tensor, "p p"]:
    """G, in the order of the parameters that match `pattern`: p² numbers, d backward passes for every
    draw."""
    p = sum(parameter.numel() for parameter in model.parameters(pattern).values())
    if p > LARGEST:
        raise OptionError(
            f"The matrix would be {p} wide; the limit is {LARGEST}. Use `ggn_matvec`, fewer parameters, or "
            "K-FAC for a large model."
        )
    total = next(model.module.parameters()).new_zeros(p, p)
    jacobian_of = func.vmap(func.jacrev(partial(_output, model)), in_dims=(None, 0, 0, 0))
    for parameters, *inputs in _batches(model, examples, draws, pattern, batch):
        jacobians = jacobian_of(parameters, *inputs)
        jacobian = torch.cat([jacobians[name].flatten(0, 1).flatten(1) for name in parameters], 1)
        total += jacobian.mT @ jacobian
    return total * _scale(model, examples, draws)


def _output(model: Denoiser, weights: Parameters, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The prediction for one draw, as a vector."""
    batch = {name: value[None] for name, value in condition.items()}
    return model.predict(x[None], t[None], batch, weights).flatten()


def ggn_matvec(
    model: Denoiser,
    examples: Examples,
    draws: Draws,
    v: Float[Tensor, "q p"],
    *,
    pattern: str = "*",
    batch: int = 8,
) -> Float[Tensor, "q p"]:
    """G v for each row of v, without G: two backward passes for each row and draw."""
    total = torch.zeros_like(v)
    for parameters, x_t, t, condition in _batches(model, examples, draws, pattern, batch):

        def output(
            weights: Parameters, x_t: Tensor = x_t, t: Tensor = t, condition: Condition = condition
        ) -> Tensor:
            return model.predict(x_t, t, condition, weights)

        value, vjp = cast(Product, func.vjp(output, parameters))
        # Jᵀu is linear in u, so the transpose of its derivative is J: a jvp without forward mode.
        _, jvp = cast(Product, func.vjp(lambda u, vjp=vjp: vjp(u)[0], torch.zeros_like(value)))
        for place, row in enumerate(v):
            (Jv,) = jvp(_shaped(row, parameters))
            (product,) = vjp(Jv)
            total[place] += torch.cat([product[name].flatten() for name in parameters])
    return total * _scale(model, examples, draws)


def _scale(model: Denoiser, examples: Examples, draws: Draws) -> float:
    """2/d over the total number of draws."""
    return 2 / (math.prod(model.shape) * len(examples) * draws.count)


def _batches(
    model: Denoiser, examples: Examples, draws: Draws, pattern: str, batch: int
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor, Condition]]:
    """The parameters, with inputs, timesteps and conditions of all draws of `batch` examples at a time."""
    model.check(examples)
    parameters = model.parameters(pattern)
    # Fused attention has neither a batching rule nor second derivatives.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for low in range(0, len(examples), batch):
            inputs = drawn(model, examples, slice(low, min(low + batch, len(examples))), simple, draws)
            yield parameters, inputs.draw.x_t.flatten(0, 1), inputs.draw.t.reshape(-1), inputs.flat


def _shaped(row: Float[Tensor, " p"], parameters: Parameters) -> dict[str, Tensor]:
    """One flat vector in the shapes of the parameters."""
    pieces = row.split([parameter.numel() for parameter in parameters.values()])
    return {
        name: piece.view_as(parameter)
        for (name, parameter), piece in zip(parameters.items(), pieces, strict=True)
    }
