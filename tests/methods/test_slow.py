"""Every gradient method against its equation written out: exact gradients in float64, dense inverses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.attribution.attribute import attribute
from headwater.curvature.gram import Gram
from headwater.diffusion.draws import Draws, Journey
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.gradients.vmap import gradients
from headwater.linalg.damping import Damping
from headwater.methods import make
from headwater.scores import dense

EXACT = {"timesteps": 3, "projector": "none"}
λ = 0.7
PATTERN = "conv_in.*|conv_out.*|mid_block.*"


@pytest.fixture(scope="module")
def model(tiny, smallest):
    final = tiny(**smallest)
    earlier = tuple(tiny(seed=seed, **smallest) for seed in (1, 2, 3, 4, 5))
    return type(final)(
        final.module, final.schedule, final.shape, final.fingerprint, checkpoints=(*earlier, final)
    )


@pytest.fixture(scope="module")
def train(pictures):
    return pictures(9, seed=1)


@pytest.fixture(scope="module")
def queries(model, pictures):
    samples = sample(model, range(4), 3, sampler="ddim", steps=5, keep_path=True)
    return pictures(
        4, seed=2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps
    )


def φ(model, examples, name="simple", draws=None):
    """Exact gradients, one row an example."""
    rows = gradients(model, examples, measurement(name), draws or Draws(3), pattern=PATTERN)
    return torch.cat(list(rows)).double().numpy()


def scores(name, model, train, queries, tmp_path, **fields):
    method = make(name, EXACT | {"parameters": PATTERN} | fields)
    store = FeatureStore(tmp_path)
    return dense(method.score(method.fit(model, train, store), queries, store))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * np.abs(b).max())


def scaled(model, train, name="simple"):
    """λ × the mean squared gradient norm: an absolute damping that matters."""
    return float(np.square(φ(model, train, name)).sum(1).mean()) * λ


@pytest.fixture
def kernel(model, train):
    """(ΦᵀΦ + λI)⁻¹ and Φ of the training images."""

    def of(name="simple"):
        rows = φ(model, train, name)
        return np.linalg.inv(rows.T @ rows + scaled(model, train, name) * np.eye(rows.shape[1])), rows

    return of


def test_gradient_and_its_cosine(model, train, queries, tmp_path):
    a, b = φ(model, queries), φ(model, train)
    close(scores("gradient", model, train, queries, tmp_path), a @ b.T)
    cosine = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    close(scores("gradient-cos", model, train, queries, tmp_path), cosine)


@pytest.mark.parametrize(
    ("count", "which"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (4, [0, 2, 3, 5]), (9, range(6))]
)
def test_tracin_and_gas_are_means_over_checkpoints(model, train, queries, tmp_path, count, which):
    dots, cosines = [], []
    for checkpoint in (model.checkpoints[i] for i in which):
        a, b = φ(checkpoint, queries), φ(checkpoint, train)
        dots.append(a @ b.T)
        cosines.append(dots[-1] / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1))
    close(scores("tracin", model, train, queries, tmp_path, checkpoints=count), np.mean(dots, axis=0))
    close(scores("gas", model, train, queries, tmp_path, checkpoints=count), np.mean(cosines, axis=0))


def test_trak_and_d_trak(model, train, queries, tmp_path, kernel):
    for name, loss in (("trak", "simple"), ("d-trak", "square")):
        K, rows = kernel(loss)
        expected = φ(model, queries, loss) @ K @ rows.T
        close(
            scores(name, model, train, queries, tmp_path, absolute_damping=scaled(model, train, loss)),
            expected,
        )


def test_relative_if_divides_by_the_preconditioned_gradient_and_renorm_if_by_the_gradient(
    model, train, queries, tmp_path, kernel
):
    K, rows = kernel()
    trak = φ(model, queries) @ K @ rows.T
    damping = {"absolute_damping": scaled(model, train)}
    close(
        scores("relative-if", model, train, queries, tmp_path, **damping),
        trak / np.linalg.norm(K @ rows.T, axis=0),
    )
    close(
        scores("renorm-if", model, train, queries, tmp_path, **damping), trak / np.linalg.norm(rows, axis=1)
    )


@pytest.mark.parametrize("name", ["relative-if", "renorm-if", "das"])
@pytest.mark.parametrize("k", [5, 64])
def test_several_dampings_at_once_equal_single_dampings_in_primal_and_dual(
    model, train, queries, tmp_path, name, k
):
    fields = {"timesteps": 2, "k": k} | ({"error_timesteps": 3, "leverage": True} if name == "das" else {})
    store, method = FeatureStore(tmp_path), make(name, fields)
    index = method.fit(model, train, store)
    assert index.gram.dual == (k > len(train))
    together = dense(method.scores_at(index, queries, [Damping(0.01), Damping(0.5)], store))
    for block, damping in zip(together, (0.01, 0.5), strict=True):
        alone = make(name, fields | {"damping": damping})
        close(dense(alone.score(alone.fit(model, train, store), queries, store)), block)


def journey(model, queries):
    """The mean over the path's steps of ∇ℓ_t(x̂₀ with new noise), one state and one picture at a time."""
    rows = []
    for i in range(len(queries)):
        total = 0.0
        for state, t in zip(queries.trajectory[i], queries.trajectory_timesteps.tolist(), strict=True):
            if t < 0:
                continue
            x_t, time = torch.as_tensor(state[None]).double(), torch.tensor([t])
            with torch.no_grad():
                picture = model.schedule.picture_and_noise(model.predict(x_t, time), x_t, time)[0].clamp(
                    -1, 1
                )
            noise = Draws((t,)).of(queries, slice(i, i + 1), model.schedule, x_t).noise[0, 0]
            again = model.schedule.noised(picture[0], noise, time)
            parameters = {
                name: value.clone().requires_grad_() for name, value in model.parameters(PATTERN).items()
            }
            loss = (model.predict(again.view(1, 1, 8, 8), time, None, parameters) - noise).square().mean()
            total = total + torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(parameters.values()))]
            )
        rows.append(total / 5)
    return torch.stack(rows).numpy()


def test_journey_trak_takes_the_querys_gradient_along_its_path(model, train, queries, tmp_path, kernel):
    K, rows = kernel()
    expected = journey(model, queries)
    close(φ(model, queries, draws=Journey()), expected)
    values = scores("journey-trak", model, train, queries, tmp_path, absolute_damping=scaled(model, train))
    close(values, expected @ K @ rows.T)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_a_journey_is_the_same_for_other_predictions(tiny, smallest, pictures, prediction):
    model = tiny(prediction=prediction, **smallest)
    samples = sample(model, range(2), 3, sampler="ddim", steps=4, keep_path=True)
    queries = pictures(2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps)
    draw = Journey(noises=2).of(queries, slice(0, 2), model, {}, torch.zeros((), dtype=torch.float64))
    assert draw.x.shape == draw.noise.shape == (2, 8, 1, 8, 8)
    assert float(draw.x.abs().max()) <= 1
    together = φ(model, queries, draws=Journey(noises=2))
    single = [φ(model, queries.take([i]), draws=Journey(noises=2))[0] for i in range(2)]
    np.testing.assert_allclose(together, single, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "path",
    [
        {"trajectory_timesteps": np.array([1500, 200, -1])},
        {"trajectory_timesteps": np.array([200, 700, -1])},
        {"trajectory_timesteps": np.array([700, 200, -3])},
    ],
    ids=["beyond the schedule", "rising", "below the picture"],
)
def test_an_impossible_path_is_refused_before_the_first_gradient(model, train, queries, tmp_path, path):
    columns = {
        "trajectory": np.zeros((4, 3, 1, 8, 8), np.float32),
        "trajectory_timesteps": np.array([700, 200, -1]),
    } | path
    with pytest.raises(DataError, match="timesteps run"):
        attribute(
            model,
            train,
            replace(queries, **columns),
            method=make("journey-trak", {"k": 8}),
            store=FeatureStore(tmp_path),
        )
    assert not list(tmp_path.glob("features/*"))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("trak", {"query_timesteps": 2}),
        ("tracin", {"checkpoints": 2}),
        ("journey-trak", {}),
        ("das", {"error_timesteps": 7}),
    ],
)
def test_a_method_makes_the_passes_that_it_says(model, train, queries, tmp_path, name, fields):
    method, counted = make(name, {"timesteps": 3, "k": 8} | fields), {True: 0, False: 0}

    def count(module, args, output):
        counted[torch.is_grad_enabled()] += len(args[0])

    hooks = [network.module.register_forward_hook(count) for network in (model, *model.checkpoints[:-1])]
    attribute(model, train, queries, method=method, store=FeatureStore(tmp_path))
    for hook in hooks:
        hook.remove()
    passes, n, q = method.passes(1000), len(train), len(queries)
    steps = len(queries.trajectory_timesteps) - 1  # of this path; a plan assumes 50
    query = steps if name == "journey-trak" else passes.query
    forward = n * passes.train_forward + (q * steps if name == "journey-trak" else 0)
    checks = counted[True] - (n * passes.train + q * query)
    assert 0 <= checks <= 20  # gradients of single draws, by which layers are checked and batches measured
    assert forward <= counted[False] <= forward + 20


def test_a_journey_needs_a_path(model, train, tmp_path):
    with pytest.raises(DataError, match="keep_path=True"):
        scores("journey-trak", model, train, train, tmp_path)


def unit_per_timestep(model, examples):
    steps = [φ(model, examples, "avg", Draws((t,))) for t in (0, 333, 666)]
    return np.mean([rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in steps], axis=0)


def test_das_is_a_kernel_of_unit_gradients_with_the_errors_of_the_training_images(
    model, train, queries, tmp_path
):
    rows, query_rows = unit_per_timestep(model, train), unit_per_timestep(model, queries)
    unit = float(np.square(rows).sum(1).mean())
    K = np.linalg.inv(rows.T @ rows + λ * unit * np.eye(rows.shape[1]))
    kernel = query_rows @ K @ rows.T
    errors = np.zeros((len(train), 4))
    for i in range(len(train)):
        for j, t in enumerate((0, 250, 500, 750)):
            draw = Draws((t,)).of(
                train, slice(i, i + 1), model.schedule, torch.zeros((), dtype=torch.float64)
            )
            with torch.no_grad():
                errors[i, j] = (model.predict(draw.x_t[0], draw.t[0]) - draw.noise[0]).square().mean().sqrt()
    r = (errors / np.linalg.norm(errors, axis=1, keepdims=True)).mean(1)
    h = np.einsum("ip,pr,ir->i", rows, K, rows)
    fields = {"damping": λ, "error_timesteps": 4}
    close(scores("das", model, train, queries, tmp_path, **fields), kernel * r)
    close(scores("das", model, train, queries, tmp_path, error=False, **fields), kernel)
    close(scores("das", model, train, queries, tmp_path, leverage=True, **fields), kernel * r / (1 - h))


def test_a_training_image_without_a_gradient_is_scored_0_and_not_divided_by_0(tmp_path):
    rows = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]])
    for name in ("relative-if", "renorm-if"):
        weights = make(name, {}).weights(Gram(rows), 0.3)
        assert weights[1] == 0 and (weights[[0, 2]] > 0).all()
