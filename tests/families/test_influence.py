"""Influence through K-FAC and EK-FAC against the equation written out: exact gradients, dense inverted
operators."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.curvature.ggn import ggn
from headwater.curvature.refinement import ExactSolver
from headwater.curvature.stored import in_order_of_content
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, ModelError, NonFiniteError, OptionError
from headwater.gradients.vmap import gradients
from headwater.linalg.damping import Damping
from headwater.methods import make
from headwater.scores import dense
from headwater.workers import Here

PATTERN = "conv_in.*|*.to_q.*|conv_out.*"
GRID = [1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
SMALL = {"timesteps": 2, "curvature_timesteps": 2, "parameters": PATTERN}


@pytest.fixture(scope="module")
def model(tiny, smallest):
    return tiny(**smallest)


@pytest.fixture(scope="module")
def train(pictures):
    return pictures(9, seed=1)


@pytest.fixture(scope="module")
def queries(model, pictures):
    samples = sample(model, range(3), 3, sampler="ddpm", steps=5, keep_path=True)
    return pictures(
        3, seed=2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps
    )


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path, warn=lambda note: None)


def fitted(name, model, train, store, **fields):
    method = make(name, SMALL | fields)
    return method, method.fit(model, train, store)


def scores(name, model, train, queries, store, grid=None, **fields):
    method, index = fitted(name, model, train, store, **fields)
    if grid is None:
        return dense(method.score(index, queries, store))
    return dense(
        method.scores_at(
            index, queries, [Damping(value, method.own_damping.absolute) for value in grid], store
        )
    )


def written_out(method, index, model, train, queries, λ):
    """(1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i), F a matrix, λ a number or one for each parameter."""
    operator = index.curvature
    matrix = operator.matvec(torch.eye(operator.p).to(operator.blocks[0].left)).double().numpy()
    g_q, g_i = (
        torch.cat(list(gradients(model, x, measurement(m), method.draws(), pattern=operator.pattern)))
        .double()
        .numpy()
        for x, m in ((queries, method.measurement), (train, "simple"))
    )
    return g_q @ np.linalg.solve(matrix + np.diag(np.broadcast_to(λ, operator.p)), g_i.T) / len(train)


def close(a, b, rtol=1e-3):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10 * np.abs(b).max())


@pytest.mark.parametrize("name", ["k-fac", "ek-fac"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"variant": "reduce", "joint": True},
        {"fisher": "loss"},
        {"fisher": "loss", "average": True},
        {"measurement": "square"},
        {"measurement": "trajectory"},
    ],
    ids=str,
)
def test_scores_are_the_equation(name, fields, model, train, queries, store):
    method, index = fitted(name, model, train, store, absolute_damping=1e-2, **fields)
    values = dense(method.score(index, queries, store))
    close(values, written_out(method, index, model, train, queries, 1e-2))


def test_a_dimensionless_damping_counts_in_each_blocks_mean_eigenvalue(model, train, queries, store):
    method, index = fitted("ek-fac", model, train, store, damping=0.5)
    shift = np.zeros(index.curvature.p)
    for block in index.curvature.blocks:
        for first, width in block.columns:
            shift[first : first + len(block.left) * width] = 0.5 * float(block.values.mean())
    close(
        dense(method.score(index, queries, store)), written_out(method, index, model, train, queries, shift)
    )


def test_a_grid_of_dampings_is_each_of_them_in_one_pass(model, train, queries, store, tmp_path):
    for kind, grid in (
        ("absolute_damping", [1e-4, 1e-2, 1.0]),
        ("absolute_damping", GRID),
        ("damping", GRID),
    ):
        several = scores("ek-fac", model, train, queries, store, grid=grid, **{kind: 1.0})
        for damping, block in zip(grid, several, strict=True):
            close(
                block,
                scores("ek-fac", model, train, queries, FeatureStore(tmp_path / "one"), **{kind: damping}),
                rtol=2e-4,
            )


def test_a_grid_has_the_self_scores_of_each_damping(model, train, store):
    method, index = fitted("ek-fac", model, train, store, damping=0.01)
    dense(method.scores_at(index, train, [Damping(value) for value in GRID], store))
    for damping in GRID:
        one = replace(method, damping=damping)
        alone = one.self_scores(one.fit(model, train, store))
        np.testing.assert_allclose(one.self_scores(index), alone, rtol=2e-4)


def test_normalised_gradients_weigh_every_timestep_equally(model, train, queries, store):
    method, index = fitted("k-fac", model, train, store, absolute_damping=1e-2, normalize=True)
    values = dense(method.score(index, queries, store))

    def rows(examples):
        single = [
            torch.cat(
                list(
                    gradients(
                        model,
                        examples,
                        measurement("simple"),
                        replace(method.draws(), timesteps=(t,)),
                        pattern=index.curvature.pattern,
                    )
                )
            )
            for t in (0, 500)
        ]
        return torch.stack([torch.nn.functional.normalize(g, dim=1) for g in single]).mean(0)

    close(
        values,
        (
            index.curvature.solve(rows(queries), Damping(1e-2, absolute=True)) @ rows(train).T / len(train)
        ).numpy(),
    )


@pytest.mark.parametrize("kind, least", [("int8", 0.999), ("int4", 0.98), ("svd:4", 0.5)])
def test_compressed_queries_score_nearly_the_same(kind, least, model, train, queries, store):
    plain = scores("ek-fac", model, train, queries, store)
    compressed = scores("ek-fac", model, train, queries, store, compression=kind)
    assert not np.array_equal(compressed, plain)
    assert all(np.corrcoef(a, b)[0, 1] > least for a, b in zip(compressed, plain, strict=True))


def test_conjugate_gradients_at_convergence_are_the_dense_solve_of_the_exact_matrix(
    model, train, queries, store
):
    notes = []
    method, index = fitted("ek-fac", model, train, store, absolute_damping=1e-2, refine=60)
    values = dense(method.score(index, queries, replace(store, warn=notes.append)))
    G = ggn(model, in_order_of_content(train), Draws(2, "antithetic"), pattern=index.curvature.pattern)
    g_q, g_i = (
        torch.cat(
            list(gradients(model, x, measurement("simple"), method.draws(), pattern=index.curvature.pattern))
        )
        for x in (queries, train)
    )
    exact = (
        g_q.double() @ torch.linalg.solve(G.double() + 1e-2 * torch.eye(len(G)), g_i.double().T) / len(train)
    )
    close(values, exact.numpy(), rtol=5e-3)
    (line,) = notes
    assert "60 steps for 3 queries over 9 images × 2 draws take 3,294 products" in line


def test_refinement_comes_nearer_to_the_exact_matrix_with_every_few_steps(model, train, queries, store):
    refined = [
        scores("k-fac", model, train, queries, store, absolute_damping=1e-2, refine=steps)
        for steps in (0, 2, 8, 60)
    ]
    far = [np.linalg.norm(values - refined[-1]) for values in refined[:-1]]
    assert far[0] > far[1] > far[2]


def test_queries_that_do_not_fit_together_have_the_same_scores_in_parts(
    model, train, queries, store, tmp_path
):
    small = replace(model, memory=1)
    parts = scores("ek-fac", small, train, queries, FeatureStore(tmp_path / "parts"))
    close(parts, scores("ek-fac", model, train, queries, store))


def test_a_crew_makes_the_same_scores(model, train, queries, store, tmp_path):
    crew = FeatureStore(tmp_path / "crew", crew=Here(), block=4)
    alone = replace(store, block=4)
    np.testing.assert_array_equal(
        scores("ek-fac", model, train, queries, crew), scores("ek-fac", model, train, queries, alone)
    )


def test_damaged_curvature_is_noted_and_computed_again(model, train, queries, store):
    before = scores("k-fac", model, train, queries, store)
    (path,) = store.root.glob("curvature/*/k-fac.safetensors")
    path.write_bytes(path.read_bytes()[:-9] + b"\x01" * 9)
    notes = []
    fitted("k-fac", model, train, replace(store, warn=notes.append))
    assert len(notes) == 1 and "damaged" in notes[0]
    np.testing.assert_array_equal(scores("k-fac", model, train, queries, store), before)


def test_the_estimate_does_not_depend_on_the_order_of_the_images(model, train, store):
    _, index = fitted("ek-fac", model, train, store)
    _, reversed_index = fitted("ek-fac", model, train.take(np.arange(9)[::-1]), store)
    assert index.curvature.fingerprint == reversed_index.curvature.fingerprint


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"damping": 0.0}, "damping is 0.0; expected a finite number above 0"),
        ({"absolute_damping": -1e-8}, "absolute_damping is -1e-08"),
        ({"damping": 0.1, "absolute_damping": 1e-8}, "expected one"),
        ({"variant": "shrink"}, "shrink"),
        ({"fisher": "exact"}, "exact"),
        ({"average": True}, "average is true for the kind 'model'"),
        ({"refine": -1}, "refine is -1"),
        ({"compression": "int2"}, "compression is 'int2'"),
        ({"curvature_timesteps": 0}, "curvature_timesteps is 0"),
        ({"refine_timesteps": 0}, "refine_timesteps is 0"),
        ({"group": 0}, "group is 0"),
    ],
)
def test_impossible_fields_are_refused(fields, words):
    with pytest.raises(OptionError, match=words):
        make("ek-fac", fields)


def test_a_pattern_without_linear_or_convolution_is_refused(model, train, store):
    with pytest.raises(ModelError, match="K-FAC has nothing to factor"):
        fitted("k-fac", model, train, store, parameters="*norm*")


def test_weights_that_are_not_finite_are_an_error(tiny, smallest, train, store):
    broken = tiny(**smallest)
    broken.module.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        fitted("k-fac", broken, train, store)


def test_pictures_of_another_size_are_refused(model, train, pictures, store):
    method, index = fitted("k-fac", model, train, store)
    with pytest.raises(DataError, match="the model takes"):
        dense(method.score(index, pictures(2, side=4), store))


def test_many_equal_images_are_no_part_given_twice(model, train, queries, store):
    equal = train.take([0, 0, 0, 0, 0, 0, 1])
    values = scores("ek-fac", model, equal, queries, replace(store, block=2))
    np.testing.assert_allclose(values[:, 0], values[:, 5], rtol=1e-5)


def test_a_refinement_that_is_not_finite_is_an_error(tiny, smallest, train, store):
    narrow = tiny(torch.float16, **smallest)
    exact = ExactSolver(narrow, train, Draws(1), "conv_out.*")
    v = torch.full(
        (2, sum(parameter.numel() for parameter in narrow.parameters("conv_out.*").values())),
        6e4,
        dtype=torch.float16,
    )
    with pytest.raises(NonFiniteError, match="Conjugate gradients gave a NaN or an infinity for query 0"):
        exact.solved(v, torch.ones(v.shape[1], dtype=torch.float64), lambda x: x, 2, store)


@pytest.mark.parametrize(
    "fields",
    [
        {"timesteps": (0, 5000)},
        {"query_timesteps": 5000},
        {"curvature_timesteps": 5000},
        {"refine_timesteps": 5000},
    ],
    ids=str,
)
def test_timesteps_that_the_schedule_lacks_are_refused_before_anything_is_computed(
    fields, model, train, store
):
    with pytest.raises(OptionError, match=next(iter(fields))):
        fitted("k-fac", model, train, store, **fields)
    assert not (store.root / "curvature").exists()


def test_a_damping_says_whether_it_is_relative_whatever_the_methods_default_is(model, train, queries, store):
    for fields in ({}, {"damping": 0.5}):
        method, index = fitted("k-fac", model, train, store, **fields)
        for damping in (Damping(1e-8, absolute=True), Damping(0.1)):
            one = make("k-fac", SMALL | {damping.field: damping.value})
            (block,) = dense(method.scores_at(index, queries, [damping], store))
            np.testing.assert_array_equal(block, dense(one.score(index, queries, store)))
    with pytest.raises(OptionError, match="one kind"):
        list(method.scores_at(index, queries, [Damping(1e-8, absolute=True), Damping(0.1)], store))
    with pytest.raises(OptionError, match="expected one or more"):
        list(method.scores_at(index, queries, [], store))


def test_self_scores_depend_on_the_methods_fields(model, train, store):
    method, index = fitted("k-fac", model, train, store)
    normalized = replace(method, normalize=True)
    assert not np.array_equal(method.self_scores(index), normalized.self_scores(index))
    np.testing.assert_array_equal(
        normalized.self_scores(index), normalized.self_scores(normalized.fit(model, train, store))
    )


def test_damage_in_the_header_is_noticed(model, train, queries, store):
    scores("ek-fac", model, train, queries, store)
    notes = []
    for path in store.root.glob("curvature/*/sums.safetensors"):
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"counts", b"cuonts", 1))
    fitted("ek-fac", model, train, replace(store, warn=notes.append))
    assert notes and "damaged" in notes[0]
