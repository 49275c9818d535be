"""The exact Gauss–Newton matrix against Jacobians by finite differences, against its matvec, and as a
Hessian."""

import pytest
import torch
from torch import nn

from headwater.curvature.ggn import ggn, ggn_matvec
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.errors import OptionError
from headwater.gradients.inputs import drawn

DRAWS = Draws(2, "antithetic", 2)
PATTERN = "conv_in.*|*.to_q.*|class_embedding.weight"


@pytest.mark.parametrize("classes", [None, 3])
def test_the_matrix_is_that_of_finite_differences(tiny, pictures, classes):
    model, examples = tiny(classes=classes), pictures(2, classes=classes)
    parameters = model.parameters("conv_out.*")
    inputs = drawn(model, examples, slice(None), simple, DRAWS)

    def output(flat):
        pieces = flat.split([parameter.numel() for parameter in parameters.values()])
        shaped = zip(parameters.items(), pieces, strict=True)
        weights = {name: piece.view_as(parameter) for (name, parameter), piece in shaped}
        with torch.no_grad():
            return model.predict(
                inputs.draw.x_t.flatten(0, 1), inputs.draw.t.reshape(-1), inputs.flat, weights
            )

    at, step = torch.cat([parameter.flatten() for parameter in parameters.values()]), 1e-5
    columns = [
        (output(at + step * e) - output(at - step * e)).flatten() / (2 * step)
        for e in torch.eye(len(at)).to(at)
    ]
    jacobian = torch.stack(columns, 1)
    torch.testing.assert_close(
        ggn(model, examples, DRAWS, pattern="conv_out.*"),
        2 / 64 / 8 * jacobian.T @ jacobian,
        rtol=1e-6,
        atol=1e-9,
    )


def test_matvec_is_the_product_with_the_matrix_and_batches_change_nothing(tiny, pictures):
    model, examples = tiny(classes=3), pictures(3, classes=3)
    matrix = ggn(model, examples, DRAWS, pattern=PATTERN)
    torch.testing.assert_close(ggn(model, examples, DRAWS, pattern=PATTERN, batch=2), matrix)
    v = torch.randn(2, len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for batch in (2, 8):
        torch.testing.assert_close(
            ggn_matvec(model, examples, DRAWS, v, pattern=PATTERN, batch=batch), v @ matrix
        )


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 4, dtype=torch.float64)

    def forward(self, x_t, t):
        return self.map(x_t.flatten(1)).view_as(x_t)


def test_of_a_linear_model_it_is_the_hessian_of_the_mean_training_loss(pictures):
    model, examples = Denoiser(Linear(), linear(), (1, 2, 2), ""), pictures(3, side=2)
    inputs = drawn(model, examples, slice(None), simple, DRAWS)

    def loss(weight, bias):
        output = nn.functional.linear(inputs.draw.x_t.flatten(2), weight, bias).view_as(inputs.draw.x_t)
        return simple(output, inputs.draw, model.schedule).mean()

    blocks = torch.autograd.functional.hessian(loss, tuple(p.detach() for p in model.module.parameters()))
    hessian = torch.cat(
        [torch.cat([b.reshape(size, -1) for b in row], 1) for size, row in zip((16, 4), blocks, strict=True)]
    )
    torch.testing.assert_close(ggn(model, examples, DRAWS), hessian)


def test_a_matrix_too_wide_is_refused_with_its_width(tiny, pictures):
    with pytest.raises(OptionError, match=r"would be \d+ wide; the limit is 8192.*ggn_matvec"):
        ggn(tiny(block_out_channels=(16, 32)), pictures(1), DRAWS)
