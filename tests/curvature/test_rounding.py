"""The share that rounding decides, against what turning the eigenvectors that it tells apart does."""

from dataclasses import replace

import pytest
import torch

from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import kfac
from headwater.curvature.rounding import decided_by_rounding, otherwise, with_loose
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.disk.store import FeatureStore
from headwater.gradients.hooks import gradients
from headwater.linalg.damping import Damping
from headwater.linalg.kron import Block
from headwater.methods import make

DRAWS = Draws(2, "antithetic", 2)
EPS = 2.0**-23


def marked(operator):
    return replace(operator, blocks=tuple(with_loose(block, EPS) for block in operator.blocks))


def turned(operator, seed):
    """The operator with its loose eigenvectors turned among themselves by a random rotation."""
    random = torch.Generator().manual_seed(seed)

    def rotated(vectors, loose):
        size = int(loose.sum())
        rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=random, dtype=vectors.dtype))
        out = vectors.clone()
        out[:, loose] = vectors[:, loose] @ rotation
        return out

    sides = {}
    blocks = []
    for block in operator.blocks:
        rows, columns = block.loose
        left = sides.setdefault(id(block.left), rotated(block.left, rows))
        right = sides.setdefault(id(block.right), rotated(block.right, columns))
        blocks.append(replace(block, left=left, right=right))
    return replace(operator, blocks=tuple(blocks))


@pytest.mark.parametrize(("count", "damping"), [(2, 0.1), (3, 0.001), (3, 1.0)])
def test_turning_loose_eigenvectors_changes_products_by_about_the_share(tiny, pictures, count, damping):
    model, examples, fisher = tiny(), pictures(count), Fisher(draws=DRAWS)
    basis = marked(kfac(model, factors(model, examples, fisher)))
    v = torch.cat(list(gradients(model, pictures(4, seed=1), simple, DRAWS, pattern=basis.pattern)))
    damping, others = Damping(damping), Fisher(draws=replace(DRAWS, seed=1), seed=1)

    def influence(operator):
        corrected = ekfac(operator, squares(model, examples, others, operator, group=1))
        return corrected, (corrected.solve(v, damping) * v).sum(1)

    corrected, expected = influence(basis)
    changes = torch.stack([influence(turned(basis, seed))[1] / expected - 1 for seed in range(4)])
    share = decided_by_rounding(corrected, v, damping)
    assert share / 4 < float(changes.abs().mean()) < 4 * share


def test_eigenvalues_that_other_rounding_could_give_are_means_over_loose_vectors_and_a_little_more():
    values = torch.tensor([[4.0, 2.0, 1e-12, 3e-12], [2.0, 1.0, 1e-12, 1e-12]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    block = with_loose(Block("layer.weight", ((0, 4),), *eye, values), EPS)
    assert [side.tolist() for side in block.loose] == [[False] * 2, [False, False, True, True]]
    expected = values.clone()
    expected[0, 2:], expected[1, 2:] = 2e-12 + EPS / 16 * 4, 1e-12 + EPS / 16 * 2
    torch.testing.assert_close(otherwise(block, EPS), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["k-fac", "ek-fac"])
def test_few_images_under_a_small_damping_are_told_and_many_are_not(tiny, pictures, tmp_path, name):
    notes = []

    def scored(count, **fields):
        store = FeatureStore(tmp_path, warn=notes.append)
        method = make(name, {"timesteps": 2, "curvature_timesteps": 2, **fields})
        index = method.fit(tiny(torch.float32), pictures(count), store)
        list(method.score(index, pictures(2, seed=1), store))

    scored(3)
    assert len(notes) == 1
    assert "Rounding decides" in notes[0] and "absolute_damping 1e-08" in notes[0]
    scored(3, damping=10.0)
    assert len(notes) == 1
