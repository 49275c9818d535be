"""K-FAC and EK-FAC as operators: exact where they must be, right in their basis, EK-FAC closer to the truth
than K-FAC."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.ggn import ggn
from headwater.curvature.kfac import kfac, load_curvature
from headwater.curvature.sums import load_sums, merged
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError, OptionError
from headwater.gradients.vmap import gradients, of_draws
from headwater.linalg.damping import Damping

DRAWS = Draws(2, "antithetic", 2)
MODEL, LOSS = Fisher(draws=DRAWS), Fisher(draws=DRAWS, kind="loss")


class Plain(nn.Module):
    """Linear layers, one after the other; with `dead`, one more whose output is not used."""

    def __init__(self, *sizes, dead=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(sizes))
        self.dead = nn.Linear(sizes[0], 2, dtype=torch.float64) if dead else None

    def forward(self, x, t):
        flat = x.flatten(1)
        if self.dead is not None:
            flat = flat + 0 * self.dead(flat).sum()
        for i, layer in enumerate(self.layers):
            flat = layer(torch.tanh(flat) if i else flat)
        return flat.view_as(x)


def plain(*sizes, **options):
    torch.random.manual_seed(0)
    return Denoiser(Plain(*sizes, **options), linear(), (1, 2, 2), f"plain-{sizes}")


def dense(operator):
    return operator.matvec(torch.eye(operator.p, dtype=torch.float64))


def each_gradient(model, examples, fisher, pattern):
    """The gradient of every single draw [n·d, p], by torch.func."""
    inputs = fisher.drawn(model, examples, slice(None))
    return of_draws(model, fisher.measurement, inputs.draw, inputs.condition, model.parameters(pattern))


@pytest.mark.parametrize("joint", [False, True])
def test_k_fac_is_exact_for_one_linear_layer(pictures, joint):
    """Its curvature is E[ã ãᵀ] ⊗ (2/d)I exactly: Monte Carlo only estimates the identity, which is filled in
    here."""
    model, examples = plain(4, 4), pictures(6, side=2)
    sums = factors(model, examples, MODEL, joint=joint)
    sums.tensors["layers.0/B"].copy_(torch.eye(4) * 2 / 4 * sums.counts["layers.0/B"])
    exact, operator = ggn(model, examples, DRAWS), dense(kfac(model, sums))
    if not joint:  # separate blocks leave out what weight and bias have in common
        exact[:16, 16:] = exact[16:, :16] = 0
    torch.testing.assert_close(operator, exact)


@pytest.mark.parametrize("fisher", [MODEL, LOSS], ids=["model", "loss"])
def test_k_fac_is_exact_for_a_single_draw_of_a_single_example_without_weight_sharing(pictures, fisher):
    model, examples = plain(4, 3, 4), pictures(1, side=2)
    fisher = Fisher(draws=Draws((400,)), kind=fisher.kind)
    g = each_gradient(model, examples, fisher, "*")[0]
    operator, places = dense(kfac(model, factors(model, examples, fisher, joint=True))), [15, 16]
    for first, size in zip((0, places[0]), places, strict=True):
        block = slice(first, first + size)
        torch.testing.assert_close(operator[block, block], torch.outer(g[block], g[block]))


@pytest.mark.parametrize("joint", [False, True], ids=["separate", "joint"])
@pytest.mark.parametrize("fisher", [MODEL, LOSS], ids=["model", "loss"])
def test_corrected_eigenvalues_are_the_brute_force_diagonal_in_their_basis(tiny, pictures, fisher, joint):
    model, examples = tiny(), pictures(3)
    basis = kfac(model, factors(model, examples, fisher, joint=joint))
    corrected = ekfac(basis, squares(model, examples, fisher, basis, group=1))
    g = each_gradient(model, examples, fisher, basis.pattern)
    torch.testing.assert_close(corrected.values, basis.coordinates(g).square().mean(0), rtol=1e-8, atol=1e-16)


def test_of_averaged_draws_the_eigenvalues_are_those_of_the_mean_gradients(tiny, pictures):
    model, examples = tiny(), pictures(3)
    fisher = Fisher(draws=DRAWS, kind="loss", average=True)
    basis = kfac(model, factors(model, examples, fisher))
    g = torch.cat(list(gradients(model, examples, simple, DRAWS, pattern=basis.pattern)))
    corrected = ekfac(basis, squares(model, examples, fisher, basis, group=1))
    expected = 64 * basis.coordinates(g).square().mean(0)  # of the loss as a sum over 64 pixels
    torch.testing.assert_close(corrected.values, expected, rtol=1e-8, atol=1e-16)


@pytest.mark.parametrize("group", [1, 3])
def test_how_many_rows_go_through_at_once_changes_no_eigenvalue_and_parts_add_up(tiny, pictures, group):
    model, examples = tiny(**{"block_out_channels": (8, 8)}), pictures(5)
    basis = kfac(model, factors(model, examples, MODEL))
    together = squares(model, examples, MODEL, basis, group=group)
    for rows in (1, 6, 7):
        again = squares(model, examples, MODEL, basis, group=group, rows=rows)
        for name, sums in together.tensors.items():
            torch.testing.assert_close(again.tensors[name], sums, rtol=1e-8, atol=1e-14)
    if group == 1:
        parts = merged(
            [squares(model, examples.take(rows), MODEL, basis, group=1) for rows in ([0], [1, 2, 3, 4])]
        )
        assert parts.counts == together.counts
        torch.testing.assert_close(ekfac(basis, parts).values, ekfac(basis, together).values)


@pytest.mark.parametrize("fisher", [MODEL, LOSS], ids=["model", "loss"])
def test_squares_of_signed_sums_have_the_same_mean(pictures, fisher):
    """Over many seeds of signs and η, to within four standard errors; with duplicates, whose η are equal, in
    the examples."""
    model, examples = plain(4, 3, 4), pictures(4, side=2).take([0, 1, 2, 3, 0, 0])
    basis = kfac(model, factors(model, examples, fisher))
    means = []
    for group in (1, 5):
        several = [Fisher(draws=DRAWS, kind=fisher.kind, seed=seed) for seed in range(40)]
        values = [
            ekfac(basis, squares(model, examples, seeded, basis, group=group)).values for seeded in several
        ]
        means.append(torch.stack(values))
    exact, grouped = means
    error = (exact.var(0) / 40 + grouped.var(0) / 40).sqrt()
    off = (exact.mean(0) - grouped.mean(0)).abs()
    assert (off <= 4 * error + 1e-12).all()
    assert (grouped.var(0) >= exact.var(0)).float().mean() > 0.9


def test_the_monte_carlo_fisher_converges_to_the_exact_ggn_and_ek_fac_is_nearer_to_it_than_k_fac(pictures):
    model, examples, many = plain(4, 3, 4), pictures(4, side=2), Draws(2, "antithetic", 400)
    fisher, exact = Fisher(draws=many), ggn(model, examples, many)
    g = each_gradient(model, examples, fisher, "*")
    assert float((g.mT @ g / len(g) - exact).norm() / exact.norm()) < 0.08
    basis = kfac(model, factors(model, examples, fisher, joint=True))
    better = ekfac(basis, squares(model, examples, fisher, basis, group=1))
    blocks = torch.zeros_like(exact)
    for block in (slice(0, 15), slice(15, 31)):
        blocks[block, block] = exact[block, block]
    first, second = (float((dense(operator) - blocks).norm() / blocks.norm()) for operator in (basis, better))
    assert second < first < 0.5


def test_eigenvalues_of_other_eigenvectors_are_refused(pictures):
    model, examples = plain(4, 3, 4), pictures(3, side=2)
    one, two = (kfac(model, factors(model, examples, fisher)) for fisher in (MODEL, LOSS))
    with pytest.raises(ModelError, match="not to"):
        ekfac(one, squares(model, examples, LOSS, two))
    with pytest.raises(OptionError, match="group is 0"):
        squares(model, examples, LOSS, two, group=0)
    with pytest.raises(ModelError, match="were made with the model"):
        squares(plain(4, 5, 4), examples, LOSS, two)


def test_files_hold_the_same_operator(tiny, pictures, tmp_path):
    model, examples = tiny(), pictures(2)
    basis = kfac(model, factors(model, examples, MODEL))
    basis.save(tmp_path / "k-fac.safetensors")
    again = load_curvature(tmp_path / "k-fac.safetensors", model)
    assert again.basis == basis.basis and again.left_out == basis.left_out and again.pattern == basis.pattern
    sums = squares(model, examples, MODEL, again)
    sums.save(tmp_path / "squares.safetensors")
    better = ekfac(basis, load_sums(tmp_path / "squares.safetensors", model))
    better.save(tmp_path / "ek-fac.safetensors")
    v = torch.randn(2, basis.p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(
        load_curvature(tmp_path / "ek-fac.safetensors").solve(v, Damping(0.1)), better.solve(v, Damping(0.1))
    )
    assert torch.equal(again.solve(v, Damping(0.1)), basis.solve(v, Damping(0.1)))
    size = (tmp_path / "k-fac.safetensors").stat().st_size
    numbers = (
        sum(b.left.numel() + b.right.numel() for b in basis.blocks if not b.name.endswith("bias")) + basis.p
    )
    assert size < 8 * numbers + 100_000  # a weight and its bias share their eigenvectors
    with pytest.raises(ModelError, match="made with the model"):
        load_curvature(tmp_path / "k-fac.safetensors", plain(4, 4))


def test_a_dead_layer_gives_zero_and_no_nan(pictures):
    model, examples = plain(4, 3, 4, dead=True), pictures(3, side=2)
    basis = kfac(model, factors(model, examples, MODEL))
    corrected = ekfac(basis, squares(model, examples, MODEL, basis))
    for operator in (basis, corrected):
        assert operator.dead == ("dead.weight", "dead.bias")
        solved = operator.solve(torch.ones(1, operator.p, dtype=torch.float64), Damping(0.1))
        assert torch.isfinite(solved).all() and not solved[:, -10:].any() and solved[:, :-10].all()


def test_eigenvalues_that_the_signs_of_equal_images_cancelled_are_refused(pictures):
    model = plain(4, 3, 4)
    twins = pictures(1, side=2).take([0, 0])
    basis = kfac(model, factors(model, twins, MODEL))
    sums = squares(model, twins, MODEL, basis)
    opposite = replace(sums, tensors={name: torch.zeros_like(t) for name, t in sums.tensors.items()})
    with pytest.raises(ModelError, match=r"equal images cancel .* Use group 1"):
        ekfac(basis, opposite)
    assert not ekfac(basis, squares(model, twins, MODEL, basis, group=1)).dead


def test_a_model_whose_layers_are_all_dead_is_refused(pictures):
    model, examples = plain(4, 3, 4, dead=True), pictures(3, side=2)
    with pytest.raises(ModelError, match=r"Every layer's curvature is zero.*dead\.weight"):
        kfac(model, factors(model, examples, MODEL, pattern="dead.*"))


def test_float32_models_are_decomposed_in_float64(tiny, pictures):
    model, wide, examples = tiny(torch.float32), tiny(), pictures(2)
    sums = factors(model, examples, MODEL)
    assert all(tensor.dtype == torch.float64 for tensor in sums.tensors.values())
    basis = kfac(model, sums)
    assert basis.values.dtype == torch.float64 and basis.blocks[0].left.dtype == torch.float32
    expected = kfac(wide, factors(wide, examples, MODEL))
    v = torch.randn(2, basis.p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    narrow, exact = basis.solve(v.float(), Damping(0.1)), expected.solve(v, Damping(0.1))
    assert float((narrow - exact).norm() / exact.norm()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_cancels_to_rounding_is_zero_and_takes_no_part_under_relative_damping(tiny, pictures, dtype):
    """The softmax of attention does not feel a constant added to all keys: gradients of keys sum to zero."""
    model, examples = tiny(dtype), pictures(3)
    sums = factors(model, examples, MODEL, variant="reduce")
    operator = kfac(model, sums)
    keys = tuple(block.name for block in operator.blocks if ".to_k." in block.name)
    assert operator.dead == keys and len(keys) >= 4
    assert all(sums.tensors[f"{name.removesuffix('.weight')}/B"].any() for name in keys if "weight" in name)
    solved = operator.solve(torch.ones(1, operator.p, dtype=dtype), Damping(0.01))
    assert not any(block.matrix(solved).any() for block in operator.blocks if block.name in keys)


@pytest.mark.parametrize("variant", ["expand", "reduce"])
def test_a_key_s_bias_is_dead_once_its_eigenvalues_are_measured_and_its_weight_is_not(
    tiny, pictures, variant
):
    model, examples = tiny(torch.float32), pictures(3)
    basis = kfac(model, factors(model, examples, MODEL, variant=variant))
    operator = ekfac(basis, squares(model, examples, MODEL, basis, group=1))
    biases = tuple(block.name for block in operator.blocks if block.name.endswith("to_k.bias"))
    assert operator.dead == biases and len(biases) >= 2


def test_products_with_dead_keys_do_not_depend_on_the_dtype(tiny, pictures):
    solved = []
    for dtype in (torch.float32, torch.float64):
        model, examples = tiny(dtype), pictures(12)
        operator = kfac(model, factors(model, examples, MODEL, variant="reduce"))
        g = torch.cat(list(gradients(model, pictures(2, seed=1), simple, DRAWS, pattern=operator.pattern)))
        solved.append((operator.solve(g, Damping(0.1)) @ g.mT).double())
    torch.testing.assert_close(*solved, rtol=1e-3, atol=0.0)
