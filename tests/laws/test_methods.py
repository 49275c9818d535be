"""Laws that every method meets, whatever it computes."""

from collections.abc import Iterator

import numpy as np
import pytest

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.methods import METHODS, make
from headwater.models import unet
from headwater.scores import dense, top
from headwater.store import FeatureStore

SMALL = {"timesteps": 2, "k": 32}


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return unet.new(unet.configuration("digits", block_out_channels=(8, 16), norm_num_groups=4), seed=1)


@pytest.fixture(scope="module")
def pictures() -> Examples:
    return Examples(np.random.Generator(np.random.Philox(3)).integers(0, 256, (22, 8, 8, 1), dtype=np.uint8))


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


def method(name: str):
    return make(name, SMALL if name not in ("random", "pixel") else {})


def scores(name: str, model: Denoiser, train: Examples, queries: Examples, store: FeatureStore) -> np.ndarray:
    mine = method(name)
    return dense(mine.score(model, mine.fit(model, train, store), queries, store))


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


def test_permuting_train_and_queries_permutes_the_scores(name, model, pictures, store, tmp_path):
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    forward = scores(name, model, train, queries, store)
    rows, columns = np.arange(6)[::-1], np.roll(np.arange(16), 5)
    other = scores(name, model, train.take(columns), queries.take(rows), FeatureStore(tmp_path / "other"))
    scale = np.abs(forward).max()
    np.testing.assert_allclose(other, forward[np.ix_(rows, columns)], atol=1e-4 * scale)


def test_a_query_scores_alike_alone_and_among_others(name, model, pictures, store, tmp_path):
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    among = scores(name, model, train, queries, store)
    alone = scores(name, model, train, queries.take([3]), FeatureStore(tmp_path / "other"))
    np.testing.assert_allclose(alone[0], among[3], atol=1e-4 * np.abs(among).max())


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


def test_a_killed_fit_resumes_to_the_same_bits(name, model, pictures, store, tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.gradients.projected.BLOCK", 4)  # so that there is something to kill between
    train, queries = pictures.take(np.arange(16)), pictures.take(np.arange(16, 22))
    whole = scores(name, model, train, queries, store)

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        raise Killed

    broken = FeatureStore(tmp_path / "broken", kill)
    if name not in ("random", "pixel"):
        with pytest.raises(Killed):
            scores(name, model, train, queries, broken)
    resumed = scores(name, model, train, queries, FeatureStore(tmp_path / "broken"))
    np.testing.assert_array_equal(resumed, whole)


def test_equal_images_score_alike(name, model, pictures, store):
    train = pictures.take([0, 1, 2, 1, 4, 5, 6, 7])
    queries = pictures.take([9, 1, 9])
    found = scores(name, model, train, queries, store)
    np.testing.assert_allclose(found[:, 1], found[:, 3], atol=1e-5 * np.abs(found).max())
    np.testing.assert_array_equal(found[0], found[2])


def test_the_self_scores_are_the_scores_of_the_training_images_for_themselves(name, model, pictures, store):
    train = pictures.take(np.arange(12))
    mine = method(name)
    index = mine.fit(model, train, store)
    square = dense(mine.score(model, index, train, store))
    np.testing.assert_allclose(mine.self_scores(index), square.diagonal(), rtol=2e-4, atol=1e-5 * np.abs(square).max())


@pytest.mark.parametrize("width", [1, 3, 7, 40])
def test_the_top_of_blocks_is_the_top_of_the_whole(width):
    values = np.random.Generator(np.random.Philox(5)).integers(0, 9, (4, 40)).astype(np.float32)  # with ties

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 40, width):
            yield values[:, start : start + width]

    order = np.argsort(-values, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(top(blocks(), 6).rows, order)
