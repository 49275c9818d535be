"""Factors and corrected eigenvalues against curvlinops, on the same draws and with the same η."""

import pytest
import torch
from torch import nn

from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import kfac
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.schedule import linear

curvlinops = pytest.importorskip("curvlinops")

DRAWS = Draws(2, "antithetic", 2)
D = 64  # pixels
N = 3


class Net(nn.Module):
    """Strided and dilated convolutions, a linear layer at every position, and a linear layer over all
    positions."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(3, 4, 3, padding=2, dilation=2)
        self.positions = nn.Linear(4, 2)
        self.out = nn.Linear(32, D)

    def forward(self, x, t):
        x = torch.tanh(self.down(x)) * (1 + t[:, None, None, None] / 1000)
        x = torch.tanh(self.conv(x)).flatten(2).mT
        return self.out(torch.tanh(self.positions(x)).flatten(1)).view(-1, 1, 8, 8)


class Flat(nn.Module):
    """`Net` as a function of one tensor that holds x_t and t, with a flat output: one loss term an
    example."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, both):
        return self.inner(both[:, :-1].view(-1, 1, 8, 8), both[:, -1]).flatten(1)


@pytest.fixture
def setting(pictures):
    torch.random.manual_seed(0)
    module = Net().double()
    return Denoiser(module, linear(), (1, 8, 8), "net"), pictures(N)


def reference(kind, model, examples, fisher, **options):
    """curvlinops' operator on all draws as one batch; targets sampled from the model are output − η/√2, with
    our η."""
    draw = fisher.drawn(model, examples, slice(None)).draw
    eta = draw.noise.flatten(1)

    class SharedDraws(kind):
        def draw_label(self, output):
            return output.detach() - eta / 2**0.5

    both = torch.cat([draw.x_t.flatten(1), draw.t.to(draw.x_t)], 1)
    outer = Flat(model.module)
    return SharedDraws(
        outer,
        nn.MSELoss(),
        list(outer.parameters()),
        [(both, eta)],
        fisher_type="mc" if fisher.kind == "model" else "empirical",
        check_deterministic=False,
        **options,
    )


@pytest.mark.parametrize("joint", [False, True], ids=["separate", "joint"])
@pytest.mark.parametrize("variant", ["expand", "reduce"])
@pytest.mark.parametrize("kind", ["model", "loss"])
def test_factors_are_those_of_curvlinops(setting, kind, variant, joint):
    model, examples = setting
    fisher = Fisher(draws=DRAWS, kind=kind)
    expected = reference(
        curvlinops.KFACLinearOperator,
        model,
        examples,
        fisher,
        kfac_approx=variant,
        separate_weight_and_bias=not joint,
    )
    expected.compute_kronecker_factors()
    ours = factors(model, examples, fisher, variant=variant, joint=joint)
    for name in ("down", "conv", "positions", "out"):
        A, B = expected._input_covariances[f"inner.{name}"], expected._gradient_covariances[f"inner.{name}"]
        torch.testing.assert_close(ours.mean(f"{name}/A"), A, rtol=1e-4, atol=1e-10)
        torch.testing.assert_close(ours.mean(f"{name}/B"), B, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("joint", [False, True], ids=["separate", "joint"])
def test_both_operators_multiply_like_curvlinops(setting, joint):
    model, examples = setting
    fisher = Fisher(draws=DRAWS)
    basis = kfac(model, factors(model, examples, fisher, joint=joint))
    better = ekfac(basis, squares(model, examples, fisher, basis, group=1))
    v = torch.randn(2, basis.p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ours, kind in ((basis, curvlinops.KFACLinearOperator), (better, curvlinops.EKFACLinearOperator)):
        expected = reference(kind, model, examples, fisher, separate_weight_and_bias=not joint)
        torch.testing.assert_close(ours.matvec(v), (expected @ v.T).T, rtol=1e-4, atol=1e-7)
