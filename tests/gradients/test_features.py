"""Features φ(x) = R ∇m(x) through the store: equal to hand-made ones, computed once, and separate for every
setting."""

import numpy as np
import pytest
import torch

from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, NonFiniteError, OptionError, UserError
from headwater.families.gradients import GradientFeatures
from headwater.gradients.features import features
from headwater.gradients.spec import GradientSpec
from headwater.gradients.vmap import gradients
from headwater.linalg.project import BLOCK, Dense, Identity, Sparse
from headwater.models import unet


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path)


@pytest.fixture(scope="module")
def model(tiny, smallest):
    return tiny(torch.float32, **smallest)


FEW = {"timesteps": 2, "k": 16}


def projected(flat, g):
    """R g entry by entry of R."""
    p = g.shape[1]
    if isinstance(flat, Identity):
        return g
    if isinstance(flat, Sparse):
        place = (np.arange(p) + np.repeat(flat.offsets(0, flat.k, -(-p // flat.k)), flat.k)[:p]) % flat.k
        out = np.zeros((len(g), flat.k))
        np.add.at(out, (slice(None), place), g * flat.signs(0, 0, p))
        return out
    rows = [flat.rows(block, min(BLOCK, p - block * BLOCK)) for block in range(-(-p // BLOCK))]
    return g @ np.concatenate(rows).astype(np.float64) / flat.k**0.5


@pytest.mark.parametrize(
    "projector", [Sparse(16, 3), Dense(16, 3), Dense(16, 3, "rademacher"), Identity()], ids=str
)
def test_features_are_projected_gradients(model, pictures, store, projector):
    examples, draws = pictures(3), Draws(2)
    g = torch.cat(list(gradients(model, examples, measurement("square"), draws))).double().numpy()
    actual = features(model, examples, GradientSpec("square", draws), projector, store)
    assert actual.dtype == np.float32
    by_hand = projected(projector, g)
    assert np.abs(actual - by_hand).max() < 1e-5 * np.linalg.norm(g, axis=1).max()


def test_a_setting_uses_its_own_measurement_draws_and_projector(model, pictures, store):
    fields = GradientFeatures(
        timesteps=(5, 700), query_timesteps=3, noises=2, measurement="avg", projector="gaussian", k=8, seed=4
    )
    examples = pictures(2)
    for actual, timesteps in (
        (fields.train(model, examples, store), (5, 700)),
        (fields.query(model, examples, store), 3),
    ):
        spec = GradientSpec("avg", Draws(timesteps, "uniform", 2, 4))
        expected = features(model, examples, spec, Dense(8, 4), FeatureStore(store.root / "other"))
        np.testing.assert_array_equal(actual, expected)


class Recording(FeatureStore):
    """A store that remembers the settings and keys it was asked for."""

    def rows(self, settings, keys, compute):
        self.settings, self.keys = settings, keys
        return super().rows(settings, keys, compute)


def test_settings_in_the_store_are_frozen(model, pictures, tmp_path):
    """Stores of earlier versions are found by the hash of exactly these settings."""
    store, examples = Recording(tmp_path), pictures(1)
    fields = GradientFeatures(
        timesteps=(5, 700), noises=2, measurement="eta:0.50", parameters="conv_out.*", k=8, seed=4
    )
    fields.query(model, examples, store)
    assert store.settings == {
        "model": model.fingerprint,
        "measurement": "eta:0.5",
        "draws": {"timesteps": (5, 700), "strategy": "uniform", "noises": 2, "seed": 4},
        "projector": {"name": "Sparse", "k": 8, "seed": 4, "nonzeros": 1},
        "parameters": "conv_out.*",
        "normalize": False,
        "dtype": "torch.float32",
        "version": 2,
    }
    assert store.keys == examples.keys


def test_a_pattern_of_parameters_gives_their_features(model, pictures, store):
    fields = GradientFeatures(parameters="conv_out.*|conv_in.*", projector="none", **FEW)
    p = sum(parameter.numel() for parameter in model.parameters(fields.parameters).values())
    assert fields.train(model, pictures(1), store).shape == (1, p)


def count_forward_passes(model):
    calls = []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    return calls, handle


def test_the_second_time_there_is_no_forward_pass(model, pictures, store):
    fields, examples = GradientFeatures(**FEW), pictures(3)
    calls, handle = count_forward_passes(model)
    try:
        first = fields.train(model, examples, store)
        computed = len(calls)
        again = fields.train(model, examples, FeatureStore(store.root))
        backwards = fields.query(model, examples.take([2, 0]), store)
        assert 0 < computed == len(calls)
    finally:
        handle.remove()
    assert np.array_equal(again, first) and np.array_equal(backwards, first[[2, 0]])


def test_new_images_are_computed_alone_and_equal_ones_once(model, pictures, store):
    fields, examples = GradientFeatures(**FEW), pictures(4)
    fields.train(model, examples.take([0, 1]), store)
    progress_calls = []
    twice = examples.take([0, 2, 2, 3])
    rows = fields.train(
        model,
        twice,
        FeatureStore(store.root, progress=lambda count, total: progress_calls.append((count, total))),
    )
    assert (
        progress_calls == [(2, 2)]
        and np.array_equal(rows[1], rows[2])
        and not np.array_equal(rows[2], rows[3])
    )


def test_killed_and_resumed_is_uninterrupted_bit_for_bit(model, pictures, tmp_path):
    fields, examples = GradientFeatures(timesteps=1, k=16), pictures(20)
    uninterrupted = fields.train(model, examples, FeatureStore(tmp_path / "whole", block=16))

    def killed(count, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fields.train(model, examples, FeatureStore(tmp_path / "killed", progress=killed, block=16))
    steps = []
    resumed = fields.train(
        model, examples, FeatureStore(tmp_path / "killed", progress=lambda *step: steps.append(step))
    )
    assert steps == [(4, 4)]
    assert np.array_equal(resumed, uninterrupted)


BASE = {"timesteps": 2, "noises": 1, "k": 16, "measurement": "simple", "projector": "sparse"}


@pytest.mark.parametrize(
    "change",
    [
        {"timesteps": 3},
        {"timesteps": (0, 1)},
        {"strategy": "cumulative"},
        {"strategy": "random"},
        {"noises": 2},
        {"measurement": "square"},
        {"measurement": "eta:0.3"},
        {"parameters": "conv_out.*"},
        {"projector": "gaussian"},
        {"projector": "rademacher"},
        {"projector": "none"},
        {"k": 17},
        {"seed": 1},
        {"normalize": True},
        {"projector": "two-sided"},
    ],
    ids=str,
)
def test_a_change_of_any_field_is_another_place_in_the_store(model, pictures, store, change):
    examples = pictures(1)
    before = GradientFeatures(**BASE).train(model, examples, store)
    after = GradientFeatures(**BASE | change).train(model, examples, store)
    assert before.shape != after.shape or not np.array_equal(before, after)
    assert len(list((store.root / "features").iterdir())) == 2


def test_other_timesteps_for_the_queries_leave_the_train_features_alone(model, pictures, store):
    examples = pictures(1)
    fields = GradientFeatures(**BASE)
    train, query = fields.train(model, examples, store), fields.query(model, examples, store)
    assert np.array_equal(train, query)
    fewer = GradientFeatures(**BASE, query_timesteps=3)
    assert np.array_equal(fewer.train(model, examples, store), train)
    assert not np.array_equal(fewer.query(model, examples, store), query)


def test_another_model_schedule_or_precision_is_another_place_in_the_store(tiny, smallest, pictures, store):
    examples, fields = pictures(1), GradientFeatures(timesteps=1, k=8)
    changes = [{}, {"seed": 1}, {"prediction": "v_prediction"}, {"dtype": torch.float64}]
    for change in changes:
        fields.train(tiny(**{"dtype": torch.float32} | smallest | change), examples, store)
    assert len(list((store.root / "features").iterdir())) == len(changes)


def test_labels_are_part_of_a_conditional_models_input(tiny, pictures, store):
    model, fields = tiny(torch.float32, classes=3), GradientFeatures(timesteps=1, k=8)
    zero, one = (fields.train(model, pictures(1, labels=np.array([label])), store) for label in (0, 1))
    assert not np.array_equal(zero, one)


# a sampler's path


def with_path(model, pictures, steps=4, seed=0):
    samples = sample(model, range(2), seed, sampler="ddpm", steps=steps, keep_path=True)
    return pictures(2, trajectory=samples.path.numpy(), trajectory_timesteps=samples.timesteps)


def test_along_a_path_the_queries_have_the_trajectory_gradient_and_the_train_images_their_loss(
    model, pictures, store
):
    fields = GradientFeatures(**FEW, measurement="trajectory", projector="none")
    queries = with_path(model, pictures)
    by_hand = torch.cat(list(gradients(model, queries, measurement("trajectory"), Draws(1)))).numpy()
    assert np.abs(fields.query(model, queries, store) - by_hand).max() < 1e-5 * np.abs(by_hand).max()
    simple = GradientFeatures(**FEW, projector="none").train(model, queries, store)
    np.testing.assert_array_equal(fields.train(model, pictures(2), store), simple)


def test_equal_pictures_with_different_paths_have_features_of_their_own(model, pictures, store):
    fields = GradientFeatures(**FEW, measurement="trajectory")
    first, second = with_path(model, pictures), with_path(model, pictures, seed=1)
    assert first.hashes == second.hashes
    assert not np.array_equal(fields.query(model, first, store), fields.query(model, second, store))


def test_a_query_without_a_path_is_refused_with_a_way_to_get_one(model, pictures, store):
    with pytest.raises(DataError, match=r"path.*keep_path=True"):
        GradientFeatures(measurement="trajectory").query(model, pictures(1), store)


# refusals


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"side": 6}, "6×6 with 1 channel; the model takes 8×8 with 1"),
        ({"channels": 3}, "8×8 with 3 channels; .* 8×8 with 1"),
    ],
)
def test_images_of_another_size_are_refused_with_both_sizes(model, pictures, store, shape, message):
    with pytest.raises(DataError, match=message):
        GradientFeatures(**FEW).train(model, pictures(1, **shape), store)


def test_missing_labels_are_refused(tiny, pictures, store):
    with pytest.raises(DataError, match=r"class-conditional \(3 classes\).*no labels.*`labels`"):
        GradientFeatures(**FEW).train(tiny(classes=3), pictures(1), store)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused(tiny, pictures, store, labels):
    with pytest.raises(DataError, match=rf"{min(labels)} to {max(labels)}.*0 … 2"):
        GradientFeatures(**FEW).train(tiny(classes=3), pictures(2, labels=np.array(labels)), store)


def test_no_model_is_refused(pictures, store):
    with pytest.raises(OptionError, match="needs a model"):
        GradientFeatures(**FEW).train(None, pictures(1), store)


def test_nothing_that_is_not_finite_reaches_the_store(tiny, smallest, pictures, store):
    model = tiny(torch.float32, **smallest)
    with torch.no_grad():
        model.module.conv_out.weight.fill_(1e30)
    model = unet.of_module(model.module, model.schedule)
    with pytest.raises(NonFiniteError, match="image 0 at timestep 0"):
        GradientFeatures(**FEW).train(model, pictures(1), store)
    assert not list(store.root.rglob("rows-*"))


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 0},
        {"noises": 0},
        {"timesteps": 0},
        {"timesteps": ()},
        {"timesteps": (0.5, 1.5)},
        {"query_timesteps": 0},
        {"strategy": "regular"},
        {"projector": "fastfood"},
        {"measurement": "eta:3"},
    ],
    ids=str,
)
def test_impossible_fields_are_refused_before_any_work(fields):
    try:
        GradientFeatures(**fields)
    except UserError as error:
        assert str(next(iter(fields.values()))).strip("()") in str(error)
    except Exception as error:  # the type checker of the tests was faster
        assert type(error).__name__ == "TypeCheckError"
    else:
        pytest.fail("accepted")
