"""Projected rows are the projections of the exact gradients, in batches of any size."""

import pytest
import torch

from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.gradients import vmap
from headwater.gradients.layers import layers_of
from headwater.gradients.projected import BLOCK, PATIENCE, gathered, power_of_two, projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Dense, Identity, Sparse, TwoSided, project

DRAWS = Draws(3, "uniform", 2)
PROJECTORS = [Dense(64, 1), Sparse(500, 1), Sparse(500, 1, 3), Identity(), TwoSided(500, 1)]


def rows(
    model,
    examples,
    projector,
    name="simple",
    draws=DRAWS,
    rows=None,
    block=BLOCK,
    patience=PATIENCE,
    **fields,
):
    spec, options = GradientSpec(name, draws, **fields), {"rows": rows, "block": block, "patience": patience}
    return torch.cat(list(projected(model, examples, spec, projector, **options)))


def exact(model, examples, name="simple", draws=DRAWS, **options):
    return torch.cat(list(vmap.gradients(model, examples, measurement(name), draws, **options)))


def relative(actual, expected):
    return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())


def two_sided(model, flat, projector):
    """L G Rᵀ of every layer from exact gradients, folded: the slow obvious version."""
    layers, blocks = layers_of(model), []
    side = projector.side(sum(layer.matrix is not None for layer in layers))
    for layer in layers:
        parts = {
            part: flat[:, place : place + getattr(layer.module, part).numel()]
            for part, place in layer.places.items()
        }
        if layer.matrix is None:
            blocks += parts.values()
            continue
        weight = torch.stack([layer.oriented(row.view_as(layer.module.weight)) for row in parts["weight"]])
        matrices = torch.cat([weight, parts["bias"][..., None]], 2) if "bias" in parts else weight
        rows, columns = (
            torch.as_tensor(projector.matrix(side, length, layer.name, end)).to(flat)
            for length, end in zip(layer.matrix, ("left", "right"), strict=True)
        )
        blocks.append((rows @ matrices @ columns.T).flatten(1))
    return project(projector.fold, torch.cat(blocks, 1))


@pytest.mark.parametrize("projector", PROJECTORS, ids=str)
def test_rows_are_the_projections_of_exact_gradients(tiny, pictures, projector):
    model, examples = tiny(classes=3), pictures(3, classes=3)
    flat = exact(model, examples)
    expected = (
        two_sided(model, flat, projector) if isinstance(projector, TwoSided) else project(projector, flat)
    )
    assert relative(rows(model, examples, projector), expected) < 1e-10


@pytest.mark.parametrize("projector", PROJECTORS, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_how_many_draws_go_through_at_once_changes_nothing_beyond_rounding(
    tiny, pictures, projector, normalize
):
    model, examples = tiny(), pictures(3)
    at_once = rows(model, examples, projector, normalize=normalize)
    for count in (1, 4, 7):
        assert relative(rows(model, examples, projector, normalize=normalize, rows=count), at_once) < 1e-10


@pytest.mark.parametrize("projector", PROJECTORS, ids=str)
def test_normalised_rows_are_projections_of_the_mean_unit_vector_of_the_timesteps(tiny, pictures, projector):
    model, examples = tiny(), pictures(2)
    by_timestep = [exact(model, examples, draws=Draws((t,), noises=2)) for t in (0, 333, 666)]
    flat = torch.stack([row / row.norm(dim=1, keepdim=True) for row in by_timestep]).mean(0)
    expected = (
        two_sided(model, flat, projector) if isinstance(projector, TwoSided) else project(projector, flat)
    )
    actual = rows(model, examples, projector, draws=Draws((0, 333, 666), noises=2), normalize=True)
    assert relative(actual, expected) < 1e-10


def test_a_path_cut_into_pieces_is_still_a_sum_over_its_steps(tiny, pictures):
    model = tiny()
    samples = sample(model, range(2), 0, sampler="ddpm", steps=6, keep_path=True)
    queries = pictures(2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps)
    expected = exact(model, queries, "trajectory")
    for count in (1, 2, 64):
        assert relative(rows(model, queries, Identity(), "trajectory", rows=count), expected) < 1e-10


def test_a_pattern_projects_the_chosen_parameters_only(tiny, pictures):
    model, examples = tiny(), pictures(2)
    pattern = "conv_out.*|*.to_q.*|*norm*"
    expected = project(Sparse(100), exact(model, examples, pattern=pattern))
    assert relative(rows(model, examples, Sparse(100), pattern=pattern), expected) < 1e-10


def test_half_precision_adds_up_in_single(tiny, pictures):
    model, examples = tiny(torch.bfloat16), pictures(2)
    actual = rows(model, examples, Sparse(500))
    assert actual.dtype == torch.float32
    assert relative(actual.double(), project(Sparse(500), exact(tiny(), examples))) < 0.2


def test_two_sided_rows_keep_inner_products_in_the_mean(tiny, pictures):
    model, examples = tiny(), pictures(2)
    flat = exact(model, examples)
    truth = float(flat[0] @ flat[1])
    products = torch.tensor(
        [float(torch.prod(rows(model, examples, TwoSided(300, seed)), 0).sum()) for seed in range(60)]
    )
    assert abs(float(products.mean()) - truth) < 4 * float(products.std()) / len(products) ** 0.5


def test_gathered_blocks_hold_the_same_rows():
    blocks = [torch.arange(4.0).view(2, 2) + 100 * i for i in range(5)]
    high = list(gathered(iter(blocks), 4))
    assert [len(block) for block in high] == [4, 4, 2]
    assert torch.equal(torch.cat(high), torch.cat(blocks))


def test_a_slow_block_is_handed_on_before_it_is_full():
    assert [len(block) for block in gathered([torch.zeros(2, 3)] * 3, 4, -1.0)] == [2, 2, 2]


@pytest.mark.parametrize(("size", "power"), [(0.2, 1), (1, 1), (3.9, 2), (4, 4), (51.2, 32)])
def test_powers_of_two(size, power):
    assert power_of_two(size) == power


@pytest.mark.parametrize("projector", PROJECTORS, ids=str)
def test_a_block_is_the_same_bit_for_bit_whatever_came_before_it(tiny, pictures, projector):
    model, examples = tiny(torch.float32), pictures(7)
    uncut = rows(model, examples, projector, block=4)
    assert torch.equal(rows(model, examples.take([4, 5, 6]), projector, block=4), uncut[4:])


def test_a_run_resumed_after_any_block_gets_the_same_bits(tiny, pictures):
    model, examples = tiny(torch.float32), pictures(7)
    uninterrupted = rows(model, examples, Sparse(100), rows=13)
    spec, hasty = GradientSpec("simple", DRAWS), {"rows": 13, "patience": -1.0}
    first = next(projected(model, examples, spec, Sparse(100), **hasty))
    assert len(first) == 2 and torch.equal(first, uninterrupted[:2])
    assert torch.equal(rows(model, examples.take(range(2, 7)), Sparse(100), **hasty), uninterrupted[2:])
