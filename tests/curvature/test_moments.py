"""Second moments without unfolding: those of the unfolded patches, borders and all."""

import pytest
import torch
from torch import nn

from headwater.curvature.moments import assembled, of_maps, overlaps, summed
from headwater.gradients.layers import ConvLayer, LinearLayer


def layer(kernel=3, **options):
    return ConvLayer("conv", nn.Conv2d(3, 5, kernel, dtype=torch.float64, **options), {"weight": 0})


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (4, 4), (3, 3), (2, 2), (1, 4), (4, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_moment_is_that_of_the_unfolded_patches(size, kernel):
    torch.random.manual_seed(0)
    one, a = layer(kernel, padding=kernel // 2), torch.randn(2, 3, *size, dtype=torch.float64)
    assert overlaps(one)
    patches = one.inputs(a).flatten(0, 1)
    torch.testing.assert_close(assembled(one, summed(one, a)), patches.T @ patches)


def test_the_moment_of_maps_is_over_rows_and_positions():
    a = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(of_maps(a), torch.einsum("nchw,ndhw->cd", a, a))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 0},
        {"stride": 2, "padding": 1},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "padding_mode": "circular"},
        {"kernel": 5, "padding": 2},
        {"kernel": (1, 3), "padding": (0, 1)},
    ],
    ids=str,
)
def test_other_convolutions_are_unfolded(options):
    assert not overlaps(layer(**options))
    assert not overlaps(LinearLayer("linear", nn.Linear(3, 3), {"weight": 0}))
