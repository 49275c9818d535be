"""The similarities beside NDA, against their formulas and on pictures with a known answer."""

import numpy as np
import pytest

from headwater.diffusion.schedule import early, linear
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.families.embedding import Embedder
from headwater.methods import make
from headwater.patches.noise import noised
from headwater.scores import dense

RANDOM = np.random.Generator(np.random.Philox(23))
MEANS = Embedder("means", lambda images: images.mean((1, 2)).astype(np.float32) - 100, fingerprint="means")


def examples(n: int, side: int = 8, channels: int = 3) -> Examples:
    return Examples(RANDOM.integers(0, 256, (n, side, side, channels), dtype=np.uint8))


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path)


def scores(name: str, store: FeatureStore, train: Examples, queries: Examples, **fields) -> np.ndarray:
    method = make(name, fields)
    return dense(method.score(method.fit(None, train, store), queries, store))


@pytest.mark.parametrize("flips", [False, True])
def test_the_optimal_score_is_the_posterior_over_images(flips, store):
    train, queries = examples(6), examples(2)
    values = scores(
        "optimal-score", store, train, queries, timesteps=(600, 900), noises=2, flips=flips, seed=3
    )
    for q in range(2):
        expected = np.zeros(6)
        for t in (600, 900):
            alpha_bar = float(linear().alpha_bar[t])
            for noisy in noised(queries.pixels()[q], queries.hashes[q], t, alpha_bar, 2, 3):
                weights = np.zeros(6)
                for pixels in [train.pixels(), train.pixels()[..., ::-1]][: 1 + flips]:
                    d = np.square(noisy.x_t - np.sqrt(alpha_bar) * pixels.astype(float)).sum((1, 2, 3))
                    weights += np.exp(-d / (2 * (1 - alpha_bar)))
                expected += weights / weights.sum() / 4
        np.testing.assert_allclose(values[q], expected, rtol=1e-4)
    assert values.sum(1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("patch", "stride"), [(3, 1), (4, 2), (8, 1)])
def test_patches_are_compared_with_their_best_match(patch, stride, store):
    train, queries = examples(40), examples(2)
    values = scores("patch-similarity", store, train, queries, patch=patch, stride=stride)

    def cut(x: np.ndarray) -> list[np.ndarray]:
        places = range(0, 8 - patch + 1, stride)
        cuts = [x[:, i : i + patch, j : j + patch].ravel().astype(float) for i in places for j in places]
        return [v / np.linalg.norm(v) for v in cuts]

    for q, i in ((0, 0), (1, 33)):
        patches_q, patches_i = cut(queries.pixels()[q]), cut(train.pixels()[i])
        assert values[q, i] == pytest.approx(
            np.mean([max(a @ b for b in patches_i) for a in patches_q]), rel=1e-5
        )


def test_a_shifted_picture_is_found_by_its_patches(store):
    train = examples(20)
    query = Examples(np.roll(train.images[4:5], 2, axis=2))
    assert scores("patch-similarity", store, train, query, patch=3).argmax() == 4


def test_patches_go_through_an_embedder(store):
    train, queries = examples(4), examples(1)
    values = scores("patch-similarity", store, train, queries, patch=4, stride=4, embedder=MEANS)
    cut = [
        images.reshape(-1, 2, 4, 2, 4, 3).mean((2, 4)).reshape(len(images), 4, 3) - 100
        for images in (train.images, queries.images)
    ]
    train_of, query_of = (means / np.linalg.norm(means, axis=2, keepdims=True) for means in cut)
    expected = np.einsum("ad,nbd->nab", query_of[0], train_of).max(2).mean(1)
    np.testing.assert_allclose(values[0], expected, rtol=1e-5)


def test_early_timesteps_are_even_up_to_the_middle():
    assert early(5, 1000) == (100, 200, 300, 400, 500) and early(1, 1000) == (500,)
    assert early((3, 999), 1000) == (3, 999)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("optimal-score", {"timesteps": (1000,)}, "the schedule has 0 … 999"),
        ("optimal-score", {"timesteps": 0}, "1 or more"),
        ("optimal-score", {"noises": -1}, "0 or more"),
        ("patch-similarity", {"patch": 0}, "patch is 0"),
        ("patch-similarity", {"stride": 0}, "stride is 0"),
        ("patch-similarity", {"patch": 9}, "the images have 8 pixels"),
    ],
)
def test_fields_out_of_range_are_refused(name, fields, words, store):
    with pytest.raises(OptionError, match=words):
        make(name, fields).fit(None, examples(2), store)


@pytest.mark.parametrize("name", ["optimal-score", "patch-similarity"])
def test_pictures_of_another_kind_are_refused(name, store):
    with pytest.raises(DataError, match="expected the same"):
        scores(name, store, examples(3), examples(1, channels=1))


def test_a_query_that_cannot_be_compared_is_refused_before_it_is_cut(store):
    method = make("patch-similarity", {})
    index = method.fit(None, examples(3), store)
    for queries, error in ((examples(1, channels=1), DataError), (examples(1, side=4), OptionError)):
        with pytest.raises(error):
            method.score(index, queries, store)  # nothing is drawn from it
