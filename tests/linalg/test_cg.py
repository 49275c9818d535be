"""Conjugate gradients: the dense solution in p steps, nearer with every step, whatever the preconditioner."""

import pytest
import torch

from headwater.linalg.cg import conjugate_gradients


@pytest.fixture
def system():
    torch.random.manual_seed(0)
    half = torch.randn(12, 12, dtype=torch.float64)
    return half @ half.T + 0.1 * torch.eye(12, dtype=torch.float64), torch.randn(3, 12, dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_p_steps_are_the_dense_solve(system, preconditioned):
    matrix, b = system
    M = matrix.diagonal() if preconditioned else torch.ones(12, dtype=torch.float64)
    x = conjugate_gradients(lambda v: v @ matrix, b, lambda v: v / M, 14)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b.T).T, rtol=1e-6, atol=1e-8)


def test_no_step_is_the_preconditioner_and_every_step_comes_nearer(system):
    matrix, b = system
    exact = torch.linalg.solve(matrix, b.T).T
    solutions = [
        conjugate_gradients(lambda v: v @ matrix, b, lambda v: v / matrix.diagonal(), steps)
        for steps in range(8)
    ]
    torch.testing.assert_close(solutions[0], b / matrix.diagonal())
    errors = torch.stack([((x - exact) @ matrix * (x - exact)).sum(1) for x in solutions])
    assert (errors.diff(dim=0) < 0).all()


def test_a_solved_row_stays_beside_others_that_are_not(system):
    matrix, b = system
    b[1] = 0
    x = conjugate_gradients(lambda v: v @ matrix, b, lambda v: v, 30)
    assert (x[1] == 0).all()
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b.T).T, rtol=1e-6, atol=1e-8)
