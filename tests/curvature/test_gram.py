"""The Gram operator against explicit inverses, and TRAK's scores against traker's own score computer."""

import numpy as np
import pytest
import torch

from headwater import seeds
from headwater.curvature.gram import Gram
from headwater.errors import NonFiniteError, OptionError

DAMPINGS = (1e-3, 0.1, 2.0, 1e3)
SHAPES = [(30, 7), (7, 30), (12, 12)]  # primal, dual, square
EXACT = {"rtol": 1e-8, "atol": 1e-12}


def features(n, k, name="phi", dtype=np.float64):
    return seeds.generator(0, "test_gram", name).standard_normal((n, k)).astype(dtype)


def inverse(phi, damping):
    return np.linalg.inv(phi.T @ phi + damping * np.eye(phi.shape[1]))


def scores(gram, queries, damping, **options):
    return np.concatenate(list(gram.scores(queries, damping, **options)), -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("damping", DAMPINGS)
def test_scores_are_those_of_the_explicit_inverse(shape, damping):
    phi, queries = features(*shape), features(5, shape[1], "queries")
    explicit = queries @ inverse(phi, damping) @ phi.T
    np.testing.assert_allclose(scores(Gram(phi), queries, damping), explicit, **EXACT)
    np.testing.assert_allclose(
        Gram(phi).self_scores(damping), np.diag(phi @ inverse(phi, damping) @ phi.T), **EXACT
    )
    np.testing.assert_allclose(Gram(phi).solve(queries, damping), queries @ inverse(phi, damping), **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_dual_and_primal_give_the_same_numbers(shape, monkeypatch):
    phi, queries = features(*shape), features(5, shape[1], "queries")
    results = []
    for dual in (False, True):
        monkeypatch.setattr(Gram, "dual", dual)
        gram = Gram(phi)
        results.append((scores(gram, queries, 0.3), gram.self_scores(0.3), gram.solve(queries, 0.3)))
    for primal, dual in zip(*results, strict=True):
        np.testing.assert_allclose(dual, primal, **EXACT)


def test_the_smaller_side_is_decomposed():
    assert [Gram(features(*shape)).dual for shape in SHAPES] == [False, True, True]
    assert [len(Gram(features(*shape)).eigen[0]) for shape in SHAPES] == [7, 7, 12]


def test_all_dampings_come_from_one_decomposition(monkeypatch):
    phi, queries = features(30, 7), features(5, 7, "queries")
    separate = np.stack([scores(Gram(phi), queries, damping) for damping in DAMPINGS])
    calls, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: calls.append(1) or eigh(a))
    gram = Gram(phi)
    together = scores(gram, queries, DAMPINGS)
    assert together.shape == (len(DAMPINGS), 5, 30)
    np.testing.assert_array_equal(together, separate)
    gram.self_scores(0.1)
    assert len(calls) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_the_columns_in_order(shape):
    gram, queries = Gram(features(*shape)), features(5, shape[1], "queries")
    blocks = list(gram.scores(queries, 0.1, block=4))
    assert [block.shape[-1] for block in blocks] == [4] * (shape[0] // 4) + [shape[0] % 4] * (
        shape[0] % 4 > 0
    )
    np.testing.assert_allclose(np.concatenate(blocks, -1), scores(gram, queries, 0.1), **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_solve_undoes_matvec_plus_damping(shape):
    gram, v = Gram(features(*shape)), features(3, shape[1], "v")
    np.testing.assert_allclose(gram.matvec(v), v @ gram.phi.T @ gram.phi, **EXACT)
    np.testing.assert_allclose(gram.solve(gram.matvec(v) + 0.5 * v, 0.5), v, rtol=1e-8, atol=1e-10)


def test_a_large_damping_leaves_the_plain_inner_product():
    phi, queries = features(30, 7), features(5, 7, "queries")
    np.testing.assert_allclose(1e12 * scores(Gram(phi), queries, 1e12), queries @ phi.T, rtol=1e-8, atol=1e-8)


def test_without_damping_leverages_add_up_to_the_rank():
    assert Gram(features(30, 7)).self_scores(0.0).sum() == pytest.approx(7, rel=1e-10)
    assert Gram(features(7, 30)).self_scores(0.0) == pytest.approx(np.ones(7), rel=1e-8)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_a_singular_kernel_without_damping_is_refused(shape):
    phi = features(*shape)
    phi[:, -1] = phi[:, 0]
    phi[-1] = phi[0]
    for damping in (0.0, 1e-30):
        with pytest.raises(OptionError, match=r"singular.*damping"):
            scores(Gram(phi), phi, damping)
        with pytest.raises(OptionError, match="singular"):
            Gram(phi).self_scores(damping)
    assert np.isfinite(scores(Gram(phi), phi, 1e-3)).all()


def test_features_that_are_all_zero_need_a_damping():
    with pytest.raises(OptionError, match="singular"):
        Gram(np.zeros((4, 3))).self_scores(0.0)
    assert (Gram(np.zeros((4, 3))).self_scores(0.1) == 0).all()


def test_with_more_features_than_images_solve_needs_a_damping():
    with pytest.raises(OptionError, match="positive damping"):
        Gram(features(7, 30)).solve(features(1, 30), 0.0)


def test_a_negative_damping_is_never_used():
    with pytest.raises(OptionError):
        scores(Gram(features(30, 7)), features(5, 7, "queries"), -1.0)


def test_float32_features_are_held_in_float64():
    phi, queries = features(30, 7, dtype=np.float32), features(5, 7, "queries", np.float32)
    explicit = queries.astype(np.float64) @ inverse(phi.astype(np.float64), 1e-3) @ phi.T.astype(np.float64)
    values = scores(Gram(phi), queries, 1e-3)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, explicit, **EXACT)
    assert Gram(phi).matvec(queries).dtype == Gram(phi).solve(queries, 1e-3).dtype == np.float64


def test_a_row_that_is_not_finite_is_named():
    phi = features(5, 3)
    phi[3, 1] = np.inf
    with pytest.raises(NonFiniteError, match="row 3"):
        Gram(phi)


def test_too_wide_a_kernel_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(Gram, "largest", 6)
    with pytest.raises(OptionError, match=r"7 wide \(30 images, k = 7\); the limit is 6"):
        Gram(features(30, 7))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_unit_of_damping_is_the_mean_squared_feature_norm(shape):
    phi = features(*shape)
    gram = Gram(phi)
    unit = np.mean([row @ row for row in phi])
    assert gram.mean_square == pytest.approx(unit, rel=1e-12)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
@pytest.mark.parametrize("damping", [0.5, 5.0])
def test_scores_are_those_of_traker_on_the_same_features(shape, damping):
    """traker divides the inverse by its mean absolute entry and works in float32; its rows are training
    images."""
    computers = pytest.importorskip("trak.score_computers")
    phi, queries = features(*shape), features(5, shape[1], "queries")
    grads, targets = torch.as_tensor(phi).float(), torch.as_tensor(queries).float()
    trak = computers.BasicScoreComputer(torch.float32, torch.device("cpu"), lambda_reg=damping)
    expected = torch.zeros(shape[0], 5)
    trak.get_scores(trak.get_x_xtx_inv(grads, trak.get_xtx(grads)), targets, expected)
    unit = np.abs(inverse(phi, damping)).mean()
    np.testing.assert_allclose(
        scores(Gram(phi), queries, damping), expected.numpy().T * unit, rtol=1e-3, atol=1e-5
    )
