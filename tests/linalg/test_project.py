"""Projectors: unbiased, with the variance they promise, and a function of their seed alone.

Monte Carlo over SEEDS seeds with COPIES disjoint sets of coordinates each; a mean and a variance may be 5 of their standard
errors off (about 1 in 2 million).
"""

import hashlib
import itertools

import numpy as np
import pytest
import torch

from headwater import seeds
from headwater.linalg.project import BLOCK, PROJECTORS, Dense, Identity, Sparse, projector

P, K = 40, 8
SEEDS, COPIES = 40, BLOCK // P
N = SEEDS * COPIES


def vectors(b, p=P, dtype=torch.float64):
    return torch.as_tensor(seeds.stream(0, "test_project").standard_normal((b, p))).to(dtype)


def matrix(project, p=P):
    """R `[k, p]`, column by column: the projections of the unit vectors."""
    return project.project(torch.eye(p, dtype=torch.float64)).T


def products(make, g, h):
    """N independent values of ⟨Rg, Rh⟩."""
    spread = [torch.kron(torch.eye(COPIES, dtype=torch.float64), v[None]) for v in (g, h)]
    return torch.cat([(project(spread[0]) * project(spread[1])).sum(1) for project in (make(s).project for s in range(SEEDS))])


CASES = [
    ("gaussian", lambda seed: Dense(K, seed), lambda g, h: g @ g * (h @ h) + (g @ h) ** 2),
    ("rademacher", lambda seed: Dense(K, seed, "rademacher"), lambda g, h: g @ g * (h @ h) + (g @ h) ** 2 - 2 * (g * h) @ (g * h)),
    ("sparse", lambda seed: Sparse(K, seed), lambda g, h: g @ g * (h @ h) + (g @ h) ** 2 - 2 * (g * h) @ (g * h)),
]


@pytest.mark.parametrize(("make", "variance"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_inner_products_are_kept_in_expectation_with_the_promised_variance(make, variance):
    g, h = vectors(2)
    found, promised = products(make, g, h), float(variance(g, h)) / K
    assert abs(float(found.mean() - g @ h)) < 5 * (promised / N) ** 0.5
    fourth = float(((found - found.mean()) ** 4).mean())
    assert abs(float(found.var()) - promised) < 5 * ((fourth - promised**2) / N) ** 0.5


@pytest.mark.parametrize("nonzeros", [2, 3, 4])
def test_more_nonzeros_keep_inner_products_too(nonzeros):
    g, h = vectors(2)
    found = products(lambda seed: Sparse(K, seed, nonzeros), g, h)
    assert abs(float(found.mean() - g @ h)) < 5 * float(found.std()) / N**0.5


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sparse"])
def test_a_projection_is_its_explicit_matrix(name):
    project, g = projector(name, K, 3), vectors(5)
    torch.testing.assert_close(project.project(g), g @ matrix(project).T, rtol=0, atol=1e-12)


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


@pytest.mark.parametrize("project", [Sparse(64, 1), Sparse(64, 1, 4), Dense(64, 1), Dense(64, 1, "rademacher")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_depend_on_its_batch(project, dtype):
    g = vectors(7, BLOCK + 100, dtype)
    whole, alone = project.project(g), project.project(g[3:4])
    assert whole.dtype == dtype and whole.shape == (7, 64)
    if isinstance(project, Sparse):
        assert torch.equal(whole[3:4], alone)  # additions in the order of the coordinates
    else:
        torch.testing.assert_close(alone, whole[3:4], **({"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}))


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sparse"])
def test_a_coordinate_keeps_its_random_numbers_when_more_follow(name):
    g = vectors(2, BLOCK + 10)
    longer = torch.cat([g, torch.zeros(2, BLOCK, dtype=torch.float64)], 1)
    project = projector(name, K, 0)
    torch.testing.assert_close(project.project(longer), project.project(g), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sparse"])
def test_blocks_of_coordinates_have_numbers_of_their_own(name):
    g = vectors(1, BLOCK)
    zero = torch.zeros_like(g)
    first = projector(name, K, 0).project(torch.cat([g, zero], 1))
    second = projector(name, K, 0).project(torch.cat([zero, g], 1))
    assert not torch.allclose(first, second)


FROZEN = {
    "gaussian": "d9b0944086862e32",
    "rademacher": "8723463989539a12",
    "sparse": "880fa4ade5644ac8",
}


@pytest.mark.parametrize("name", FROZEN)
def test_the_matrix_of_a_seed_is_frozen(name):
    project = projector(name, 10, 7)
    if name == "sparse":
        place, sign = project.entries(BLOCK + 5)
        numbers = place.astype(np.int64).tobytes() + sign.astype(np.int64).tobytes()
    else:
        numbers = project.rows(0, BLOCK).tobytes() + project.rows(BLOCK, 5).tobytes()
    assert hashlib.blake2b(numbers, digest_size=8).hexdigest() == FROZEN[name]


def test_projectors_are_called_by_their_names():
    assert [projector(name, 5, 2) for name in PROJECTORS] == [Dense(5, 2), Dense(5, 2, "rademacher"), Sparse(5, 2), Identity()]
    g = vectors(2)
    assert torch.equal(Identity().project(g), g)


def test_another_seed_gives_another_matrix():
    for name in ("gaussian", "rademacher", "sparse"):
        assert not torch.equal(matrix(projector(name, K, 0)), matrix(projector(name, K, 1)))
