"""Kronecker blocks in their eigenbasis against the dense matrices they stand for."""

import pytest
import torch

from headwater.errors import NonFiniteError, OptionError
from headwater.linalg.damping import Damping
from headwater.linalg.kron import Block, Kronecker, decomposed, whole

DAMPINGS = (1e-4, 0.03, 2.0)


def spd(size, seed):
    root = torch.randn(size, size + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT


@pytest.fixture
def operator():
    """Two layers: a weight [3, 4] with a bias of its own, and a joint block [2, 5 + 1] whose weight and bias
    lie apart."""
    (b, left), (a, right), (c, top), (d, side) = (
        decomposed(spd(size, seed)) for seed, size in enumerate((3, 4, 2, 6))
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    return Kronecker(
        (
            Block("first.weight", ((0, 4),), left, right, b[:, None] * a),
            Block("first.bias", ((12, 1),), left, one, b[:, None] * 1.0),
            Block("second", ((15, 5), (25, 1)), top, side, c[:, None] * d + 0.1),
        )
    )


def dense(operator, change=lambda values, block: values):
    """Every block's matrix by torch.kron, in the coordinates of the vectors."""
    out = torch.zeros(operator.p, operator.p, dtype=torch.float64)
    for block in operator.blocks:
        o = len(block.left)
        places = torch.cat(
            [torch.arange(first, first + o * w).view(o, w) for first, w in block.columns], 1
        ).flatten()
        basis = torch.kron(block.left, block.right)
        out[places[:, None], places] = basis @ torch.diag(change(block.values, block).flatten()) @ basis.T
    return out


def vectors(operator, q=5):
    return torch.randn(q, operator.p, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_matvec_is_the_dense_product(operator):
    v = vectors(operator)
    torch.testing.assert_close(operator.matvec(v), v @ dense(operator), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_solve_is_the_dense_solve_with_absolute_and_with_dimensionless_damping(operator, damping):
    v = vectors(operator)
    absolute = torch.linalg.solve(dense(operator) + damping * torch.eye(operator.p), v.T).T
    torch.testing.assert_close(
        operator.solve(v, Damping(damping, absolute=True)), absolute, rtol=1e-8, atol=1e-8
    )
    damped = dense(operator, lambda values, block: values + damping * values.mean())
    torch.testing.assert_close(
        operator.solve(v, Damping(damping)), torch.linalg.solve(damped, v.T).T, rtol=1e-8, atol=1e-8
    )


def test_a_grid_of_dampings_is_an_elementwise_scale_of_coordinates_rotated_once(operator):
    v, w = vectors(operator, 3), vectors(operator, 7)
    u, z = operator.coordinates(v), operator.coordinates(w)
    torch.testing.assert_close(u @ z.T, v @ w.T)
    torch.testing.assert_close(operator.to_parameters(u), v)
    for damping in DAMPINGS:
        expected = operator.solve(v, Damping(damping)) @ w.T
        torch.testing.assert_close(
            (u * operator.inverse(Damping(damping))) @ z.T, expected, rtol=1e-9, atol=1e-9
        )


def test_eigenvalues_lie_where_coordinates_put_theirs(operator):
    v = vectors(operator)
    torch.testing.assert_close(
        operator.coordinates(operator.matvec(v)), operator.coordinates(v) * operator.values
    )
    torch.testing.assert_close(
        operator.values.sort().values, torch.linalg.eigvalsh(dense(operator)), rtol=1e-8, atol=1e-8
    )


def test_a_dead_block_has_no_relative_damping_and_leaves_the_others_alone(operator):
    first, bias, second = operator.blocks
    dead = Block(bias.name, bias.columns, bias.left, bias.right, torch.zeros_like(bias.values))
    broken, v = Kronecker((first, dead, second)), vectors(operator)
    assert broken.dead == ("first.bias",) and operator.dead == ()
    for absolute in (False, True):
        x = broken.solve(v, Damping(0.1, absolute))
        torch.testing.assert_close(x[:, 12:15], v[:, 12:15] / 0.1 if absolute else 0 * v[:, 12:15])
        torch.testing.assert_close(x[:, :12], operator.solve(v, Damping(0.1, absolute))[:, :12])


def test_no_damping_is_allowed_where_the_inverse_exists_and_refused_by_name_where_not(operator):
    v = vectors(operator)
    torch.testing.assert_close(operator.matvec(operator.solve(v, Damping(0.0))), v, rtol=1e-7, atol=1e-7)
    singular = spd(4, 1) - 0
    values, basis = decomposed(singular)
    values[0] = 0
    block = Block("layer.weight", ((0, 1),), basis, torch.ones(1, 1, dtype=torch.float64), values[:, None])
    with pytest.raises(OptionError, match=r"layer\.weight is singular and the damping is 0"):
        Kronecker((block,)).solve(torch.ones(1, 4, dtype=torch.float64), Damping(0.0))


@pytest.mark.parametrize("damping", [-0.1, float("nan"), float("inf")])
def test_a_damping_out_of_range_is_refused(operator, damping):
    with pytest.raises(OptionError, match="expected a finite number of 0 or more"):
        operator.solve(vectors(operator), Damping(damping))


def test_vectors_of_other_parameters_are_refused(operator):
    with pytest.raises(OptionError, match="26 coordinates; the curvature has 27"):
        operator.matvec(torch.ones(1, 26, dtype=torch.float64))


def test_eigenvalues_that_are_not_finite_are_refused_by_name(operator):
    block = operator.blocks[0]
    with pytest.raises(NonFiniteError, match=r"first\.weight"):
        Kronecker((Block(block.name, block.columns, block.left, block.right, block.values / 0),))


def test_a_full_matrix_is_one_block():
    matrix, v = spd(6, 3), torch.ones(2, 6, dtype=torch.float64)
    torch.testing.assert_close(whole(matrix).matvec(v), v @ matrix)
    expected = torch.linalg.solve(matrix + 0.2 * matrix.trace() / 6 * torch.eye(6), v.T).T
    torch.testing.assert_close(whole(matrix).solve(v, Damping(0.2)), expected)
