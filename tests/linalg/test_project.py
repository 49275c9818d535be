"""Projectors are unbiased, have the promised variance, and depend on their seed alone.

Monte Carlo over SEEDS seeds with COPIES disjoint sets of coordinates each; a mean and a variance may be 5 of
their standard errors off (about 1 in 2 million)."""

import hashlib
import itertools

import numpy as np
import pytest
import torch

from headwater import seeds
from headwater.linalg.project import (
    BLOCK,
    PROJECTORS,
    SIGNS,
    CardCache,
    Dense,
    Identity,
    Sparse,
    TwoSided,
    project,
    projector,
)

P, K = 40, 8
SEEDS, COPIES = 40, BLOCK // P
N = SEEDS * COPIES
FLAT = ["gaussian", "rademacher", "sparse"]  # the projectors of a flat gradient


def vectors(b, p=P, dtype=torch.float64):
    return torch.as_tensor(seeds.generator(0, "test_project").standard_normal((b, p))).to(dtype)


def matrix(flat, p=P):
    """R `[k, p]`, column by column: the projections of the unit vectors."""
    return project(flat, torch.eye(p, dtype=torch.float64)).T


def products(make, g, h):
    """N independent values of ⟨Rg, Rh⟩."""
    spread = [torch.kron(torch.eye(COPIES, dtype=torch.float64), v[None]) for v in (g, h)]
    draws = [(project(make(s), spread[0]) * project(make(s), spread[1])).sum(1) for s in range(SEEDS)]
    return torch.cat(draws)


def has_mean_and_variance(samples, mean, variance):
    n = len(samples)
    assert abs(float(samples.mean()) - mean) < 5 * (variance / n) ** 0.5
    fourth = float(((samples - samples.mean()) ** 4).mean())
    assert abs(float(samples.var()) - variance) < 5 * ((fourth - variance**2) / n) ** 0.5


CASES = [
    ("gaussian", lambda seed: Dense(K, seed), lambda g, h: g @ g * (h @ h) + (g @ h) ** 2),
    (
        "rademacher",
        lambda seed: Dense(K, seed, "rademacher"),
        lambda g, h: g @ g * (h @ h) + (g @ h) ** 2 - 2 * (g * h) @ (g * h),
    ),
]


@pytest.mark.parametrize(("make", "variance"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_inner_products_are_kept_in_expectation_with_the_promised_variance(make, variance):
    g, h = vectors(2)
    has_mean_and_variance(products(make, g, h), float(g @ h), float(variance(g, h)) / K)


def test_a_sparse_sketch_keeps_inner_products_with_the_promised_variance():
    g, h = vectors(2)
    samples = torch.stack(
        [project(Sparse(K, seed), torch.stack([g, h])).prod(0).sum() for seed in range(4000)]
    )
    stretch = torch.arange(P) // K
    apart = (stretch[:, None] != stretch).double()
    promised = (g**2) @ apart @ (h**2) + (g * h) @ apart @ (g * h)
    has_mean_and_variance(samples, float(g @ h), float(promised) / K)


def test_a_sparse_sketch_of_no_more_coordinates_than_places_is_an_isometry():
    g = vectors(3, 60)
    torch.testing.assert_close(
        project(Sparse(64, 5), g) @ project(Sparse(64, 5), g).T, g @ g.T, rtol=0, atol=1e-12
    )


def orthonormal(n, s):
    """a, c of E[S_ij S_kl] = a δ_ij δ_kl + c (δ_ik δ_jl + δ_il δ_jk) for S = (n/s)·(projection on s uniformly
    random directions).

    From its invariance, trace and S² = (n/s) S.
    """
    a = s * (s * (n + 1) - 2) / (n * (n + 2) * (n - 1))
    return a * n**2 / s**2, (s / n - a) / (n + 1) * n**2 / s**2


def test_two_sides_keep_inner_products_with_the_variance_of_random_directions():
    rows, columns, side = 7, 9, 4
    G, H = (v.view(rows, columns) for v in vectors(2, rows * columns))
    samples = []
    for seed in range(6000):
        two = TwoSided(4, seed)
        L, R = (
            torch.as_tensor(two.matrix(side, n, "layer", end)).double()
            for n, end in ((rows, "left"), (columns, "right"))
        )
        samples.append(((L @ G @ R.T) * (L @ H @ R.T)).sum())
    (a, c), (e, f) = orthonormal(rows, side), orthonormal(columns, side)
    A, B, C, D = H.T @ G, H.T @ G, H.T @ H, G.T @ G
    trace = torch.trace
    squared = e * trace(A) ** 2 + f * (trace(A @ A.T) + trace(A @ A))
    first = e * trace(D @ C) + f * (trace(D @ C) + trace(C) * trace(D))
    second = e * trace(B @ B) + f * (trace(B @ B.T) + trace(B) ** 2)
    mean = float((G * H).sum())
    has_mean_and_variance(torch.stack(samples), mean, float(a * squared + c * (first + second)) - mean**2)


def test_a_side_that_is_short_enough_is_left_as_it_is():
    assert np.array_equal(TwoSided(4).matrix(5, 5, "a"), np.eye(5))
    rows = TwoSided(4).matrix(5, 6, "a").astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5) * 6 / 5, atol=1e-6)
    assert not np.allclose(rows, TwoSided(4).matrix(5, 6, "b")) and not np.allclose(
        rows, TwoSided(4, 1).matrix(5, 6, "a")
    )


@pytest.mark.parametrize(("k", "layers", "side"), [(4096, 40, 21), (1, 100, 1), (256, 1, 32)])
def test_the_sides_of_all_layers_make_four_times_k(k, layers, side):
    assert TwoSided(k).side(layers) == side


@pytest.mark.parametrize("nonzeros", [2, 3, 4])
def test_more_nonzeros_keep_inner_products_too(nonzeros):
    g, h = vectors(2)
    samples = products(lambda seed: Sparse(K, seed, nonzeros), g, h)
    assert abs(float(samples.mean() - g @ h)) < 5 * float(samples.std()) / N**0.5


@pytest.mark.parametrize("name", FLAT)
def test_a_projection_is_its_explicit_matrix(name):
    flat, g = projector(name, K, 3), vectors(5)
    torch.testing.assert_close(project(flat, g), g @ matrix(flat).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*FLAT, "none"])
@pytest.mark.parametrize("cuts", [(1, 2, 39), (5, 8, 16), (3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK)])
def test_a_gradient_may_come_in_pieces(name, cuts):
    p = max(40, cuts[-1] + 30)
    flat, g = projector(name, K, 3), vectors(2, p)
    out = torch.zeros(2, flat.width(p), dtype=torch.float64)
    for low, high in itertools.pairwise((0, *cuts, p)):
        flat.add(out, g[:, low:high], low)
    torch.testing.assert_close(out, project(flat, g), rtol=0, atol=1e-11)


def test_dense_rademacher_entries_are_plus_or_minus_one_over_root_k():
    entries = matrix(Dense(K, 0, "rademacher"))
    torch.testing.assert_close(entries.abs(), torch.full_like(entries, K**-0.5), rtol=0, atol=1e-15)
    assert abs(int(entries.sign().sum())) < 5 * entries.numel() ** 0.5


@pytest.mark.parametrize("nonzeros", [1, 2, 3])
def test_each_column_of_a_sparse_matrix_has_s_entries_one_in_each_part_of_k(nonzeros):
    entries = matrix(Sparse(K, 0, nonzeros), 200)
    edges = [K * s // nonzeros for s in range(nonzeros + 1)]
    for low, high in itertools.pairwise(edges):
        part = entries[low:high]
        assert ((part != 0).sum(0) == 1).all()
        assert (part[part != 0].abs() - nonzeros**-0.5).abs().max() < 1e-15
        assert (part != 0).any(1).all() and (part > 0).any() and (part < 0).any()


@pytest.mark.parametrize(
    "flat", [Sparse(64, 1), Sparse(64, 1, 4), Dense(64, 1), Dense(64, 1, "rademacher")], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_depend_on_its_batch(flat, dtype):
    g = vectors(7, BLOCK + 100, dtype)
    together, alone = project(flat, g), project(flat, g[3:4])
    assert together.dtype == dtype and together.shape == (7, 64)
    if isinstance(flat, Sparse):
        assert torch.equal(together[3:4], alone)  # additions in the order of the coordinates
    else:
        torch.testing.assert_close(
            alone, together[3:4], **({"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {})
        )


@pytest.mark.parametrize("name", FLAT)
def test_a_coordinate_keeps_its_random_numbers_when_more_follow(name):
    g = vectors(2, SIGNS + 10)
    longer = torch.cat([g, torch.zeros(2, SIGNS, dtype=torch.float64)], 1)
    flat = projector(name, K, 0)
    torch.testing.assert_close(project(flat, longer), project(flat, g), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", FLAT)
def test_blocks_of_coordinates_have_numbers_of_their_own(name):
    g = vectors(1, SIGNS)
    zero = torch.zeros_like(g)
    first = project(projector(name, K, 0), torch.cat([g, zero], 1))
    second = project(projector(name, K, 0), torch.cat([zero, g], 1))
    assert not torch.allclose(first.abs().sort().values, second.abs().sort().values)


FROZEN = {
    "gaussian": "d9b0944086862e32",
    "rademacher": "8723463989539a12",
    "sparse": "e53e14a3601cf1f3",
    "two-sided": "5b1ae5da16e74cfc",
}


@pytest.mark.parametrize("name", FROZEN)
def test_the_matrix_of_a_seed_is_frozen(name):
    drawn = projector(name, 10, 7)
    if isinstance(drawn, Sparse):
        numbers = drawn.offsets(0, 10, 100).tobytes() + drawn.signs(0, 3, SIGNS + 5).tobytes()
    elif isinstance(drawn, TwoSided):
        # QR rounds as it likes
        numbers = np.rint(1000 * drawn.matrix(3, 20, "layer", "left")).astype(np.int64).tobytes()
    else:
        numbers = drawn.rows(0, BLOCK).tobytes() + drawn.rows(1, 5).tobytes()
    assert hashlib.blake2b(numbers, digest_size=8).hexdigest() == FROZEN[name]


def test_projectors_are_called_by_their_names():
    expected = [Dense(5, 2), Dense(5, 2, "rademacher"), Sparse(5, 2), TwoSided(5, 2), Identity()]
    assert [projector(name, 5, 2) for name in PROJECTORS] == expected
    g = vectors(2)
    assert torch.equal(project(Identity(), g), g)


def test_another_seed_gives_another_matrix():
    for name in FLAT:
        assert not torch.equal(matrix(projector(name, K, 0)), matrix(projector(name, K, 1)))


@pytest.mark.parametrize("nonzeros", [1, 3])
@pytest.mark.parametrize("edges", [(0, 100), (0, 7, 61, 100), (0, 64, 65, 100)], ids=str)
def test_a_fold_by_gathering_is_the_fold_by_stretches(nonzeros, edges):
    """Cards fold with `_fold_at_once`; here both run on the processor, also from the middle of a stretch."""
    sparse, g = Sparse(16, seed=3, nonzeros=nonzeros), vectors(4, 100)
    parts = [16 * s // nonzeros for s in range(nonzeros + 1)]
    by_stretches, gathered = torch.zeros(4, 16, dtype=g.dtype), torch.zeros(4, 16, dtype=g.dtype)
    for start, stop in itertools.pairwise(edges):
        piece = g[:, start:stop]
        sparse.add(by_stretches, piece, start)
        for s, (low, high) in enumerate(itertools.pairwise(parts)):
            sparse._fold_at_once(gathered[:, low:high], piece, start, s)
    torch.testing.assert_close(gathered, by_stretches, rtol=1e-12, atol=1e-12)


def test_signs_stay_on_a_card_as_long_as_there_is_room():
    """Pieces that come again are found; those beyond the bound are made again, and are the same."""
    cache, calls = CardCache(250), []

    def tensors(sketch, piece):
        def make():
            calls.append(piece)
            return (torch.full((100,), piece, dtype=torch.int8),)

        return cache.get(sketch, piece, make)[0]

    for _ in range(3):
        assert [int(tensors("a", piece)[0]) for piece in range(4)] == [0, 1, 2, 3]
    assert calls == [0, 1, 2, 3, 2, 3, 2, 3] and cache.bytes == 200
    tensors("b", 7)
    assert cache.bytes == 100 and len(cache.tensors) == 1


def test_a_fold_without_room_is_the_same(monkeypatch):
    sparse, g, caches = Sparse(16, seed=5), vectors(4, 100), (CardCache(2**20), CardCache(0))
    folds = torch.zeros(2, 4, 16, dtype=g.dtype)
    for cache, out in zip(caches, folds, strict=True):
        monkeypatch.setattr("headwater.linalg.project._ON_CARD", cache)
        for start, stop in ((0, 61), (61, 100)):
            sparse._fold_at_once(out, g[:, start:stop], start, 0)
    assert torch.equal(*folds) and caches[0].bytes > 100 and caches[1].bytes == 0
