"""Laws that every method obeys, whatever it computes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from headwater import seeds
from headwater.bank import Bank
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.embedding import Embedder
from headwater.families.gradients import GradientFeatures, Gradients
from headwater.methods import METHODS, make, method_class, needs_bank
from headwater.models import unet
from headwater.scores import dense, top

SMALL = {"timesteps": 2, "k": 32}
# With λ = 1e-8, half a unit in the last place of the weights moves these scores by 7e-5 of the largest, and
# two fits on a busy machine may differ by that much; with this damping by 3e-6.
INFLUENCE = {"timesteps": 2, "damping": 0.1}
COLOURS = Embedder(
    "colours", lambda images: images.reshape(len(images), -1)[:, :7].astype(np.float32) + 1, fingerprint="1"
)
SUBSETS = 40


@pytest.fixture(scope="module")
def model() -> Denoiser:
    """A model with two checkpoints, the second the model itself."""
    config = unet.configuration("digits", block_out_channels=(8, 16), norm_num_groups=4)
    final = unet.new(config, seed=1)
    return replace(final, checkpoints=(unet.new(config, seed=2), final))


@pytest.fixture(scope="module")
def pictures() -> Examples:
    return Examples(np.random.Generator(np.random.Philox(3)).integers(0, 256, (22, 8, 8, 1), dtype=np.uint8))


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


def bank_of(folder, train: Examples, queries: Examples) -> Bank:
    """A bank with subsets and outcomes that depend on content: another order of pictures is the same
    truth."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.array([seeds.generator(0, "kept", content).random(SUBSETS) < 0.5 for content in train.hashes]).T
    outcomes = np.array([seeds.normal((SUBSETS,), 0, "outcome", content) for content in queries.hashes]).T
    np.save(folder / "outcomes.npy", outcomes[:, None].astype(np.float32))
    return Bank(folder, {"recipe": {"subsets": 0}}, train, queries, mask)


def on_paths(queries: Examples) -> Examples:
    """The queries with a sampler's path that depends on content."""
    path = np.array([seeds.normal((3, 1, 8, 8), 0, "path", content) for content in queries.hashes])
    return replace(queries, trajectory=path, trajectory_timesteps=np.array([700, 200, -1]))


def method(name: str, store: FeatureStore, train: Examples, queries: Examples):
    if name == "clip":
        return make(name, {"embedder": COLOURS})
    kind = method_class(name)
    fields = SMALL if issubclass(kind, GradientFeatures) else INFLUENCE if issubclass(kind, Gradients) else {}
    return make(
        name, fields, bank_of(store.root / "bank", train, queries) if needs_bank(method_class(name)) else None
    )


def scores(name: str, model: Denoiser, train: Examples, queries: Examples, store: FeatureStore) -> np.ndarray:
    queries = on_paths(queries)
    attribution = method(name, store, train, queries)
    return dense(attribution.score(attribution.fit(model, train, store), queries, store))


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


def test_permuting_train_and_queries_permutes_the_scores(name, model, pictures, store, tmp_path):
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    forward = scores(name, model, train, queries, store)
    rows, columns = np.arange(6)[::-1], np.roll(np.arange(16), 5)
    permuted = scores(name, model, train.take(columns), queries.take(rows), FeatureStore(tmp_path / "other"))
    scale = np.abs(forward).max()
    np.testing.assert_allclose(permuted, forward[np.ix_(rows, columns)], atol=1e-4 * scale)


def test_a_query_has_the_same_scores_alone_and_among_others(name, model, pictures, store, tmp_path):
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    among = scores(name, model, train, queries, store)
    alone = scores(name, model, train, queries.take([3]), FeatureStore(tmp_path / "other"))
    np.testing.assert_allclose(alone[0], among[3], atol=1e-4 * np.abs(among).max())


def test_shared_noise_obeys_the_laws_too(name, model, pictures, store, tmp_path):
    """Another order, a query alone, and training images added at the end: the same scores."""
    if "noise" not in method_class(name).__dataclass_fields__:
        pytest.skip("no gradients")
    train, queries = pictures.take(np.arange(16)), on_paths(pictures.take(np.arange(16, 22)))

    def scored(chosen, asked, folder):
        shared = replace(method(name, store, train, queries), noise="shared")
        kept = FeatureStore(tmp_path / folder)
        return dense(shared.score(shared.fit(model, chosen, kept), asked, kept))

    scores = scored(train, queries, "first")
    own = method(name, store, train, queries)
    assert not np.allclose(scores, dense(own.score(own.fit(model, train, store), queries, store)))
    columns, tolerance = np.roll(np.arange(16), 5), 1e-4 * np.abs(scores).max()
    permuted = scored(train.take(columns), queries.take([3, 1]), "second")
    np.testing.assert_allclose(permuted, scores[[3, 1]][:, columns], atol=tolerance)


def test_fitting_twice_makes_no_second_forward_pass(name, model, pictures, store):
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    first = scores(name, model, train, queries, store)
    calls = []
    hook = model.module.register_forward_hook(lambda *_: calls.append(1))
    try:
        second = scores(name, model, train, queries, store)
    finally:
        hook.remove()
    assert not calls
    np.testing.assert_array_equal(first, second)


def test_a_killed_fit_resumes_to_the_same_bits(name, model, pictures, store, tmp_path):
    store = replace(store, block=4)  # several blocks, to be killed between
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    uninterrupted = scores(name, model, train, queries, store)

    class Killed(BaseException):
        pass

    def kill(finished: int, total: int) -> None:
        raise Killed

    broken = FeatureStore(tmp_path / "broken", kill, block=4)
    if issubclass(method_class(name), Gradients) or name in ("clip", "nda"):
        with pytest.raises(Killed):
            scores(name, model, train, queries, broken)
    resumed = scores(name, model, train, queries, FeatureStore(tmp_path / "broken", block=4))
    np.testing.assert_array_equal(resumed, uninterrupted)


def test_equal_images_have_equal_scores(name, model, pictures, store):
    train = pictures.take([0, 1, 2, 1, 4, 5, 6, 7])
    queries = pictures.take([9, 1, 9])
    values = scores(name, model, train, queries, store)
    np.testing.assert_allclose(values[:, 1], values[:, 3], atol=1e-5 * np.abs(values).max())
    np.testing.assert_array_equal(values[0], values[2])


def test_the_self_scores_are_the_scores_of_the_training_images_for_themselves(name, model, pictures, store):
    train = pictures.take(np.arange(12))
    attribution = method(name, store, train, train)
    index = attribution.fit(model, train, store)
    if needs_bank(method_class(name)) or name in ("nda", "optimal-score"):  # they would need as many queries
        assert np.isnan(attribution.self_scores(index)).all()
    elif not getattr(attribution, "along_path", False):  # training images have no path
        square = dense(attribution.score(index, train, store))
        np.testing.assert_allclose(
            attribution.self_scores(index), square.diagonal(), rtol=2e-4, atol=1e-5 * np.abs(square).max()
        )


def test_methods_of_one_measurement_share_their_features(model, pictures, store):
    train, queries = pictures.take(np.arange(16)), on_paths(pictures.take(np.arange(16, 22)))
    make("trak", SMALL).fit(model, train, store)
    list(make("trak", SMALL).score(make("trak", SMALL).fit(model, train, store), queries, store))
    calls = []
    hook = model.module.register_forward_hook(lambda *_: calls.append(1))
    try:
        for name in ("gradient", "gradient-cos", "relative-if", "renorm-if"):
            scores(name, model, train, queries, store)
        make("journey-trak", SMALL).fit(model, train, store)
        make("tracin", SMALL | {"checkpoints": 1}).fit(model, train, store)
    finally:
        hook.remove()
    assert not calls


@pytest.mark.parametrize("width", [1, 3, 7, 40])
def test_the_top_of_blocks_is_the_top_of_the_whole(width):
    values = np.random.Generator(np.random.Philox(5)).integers(0, 9, (4, 40)).astype(np.float32)  # with ties

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 40, width):
            yield values[:, start : start + width]

    order = np.argsort(-values, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(top(blocks(), 6).rows, order)
