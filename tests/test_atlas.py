"""Maps of a query: what they sum to, and that they point at the right patch."""

import numpy as np
import pytest

from headwater import atlas
from headwater.core import Examples
from headwater.errors import DataError
from headwater.methods import make
from headwater.regions import GRAIN, TILES, edges, read_regions, tiled, write_regions
from headwater.scores import dense
from headwater.store import FeatureStore

RANDOM = np.random.Generator(np.random.Philox(17))


def pasted() -> tuple[Examples, Examples]:
    """30 training images of noise, and a query of two of their halves: left of number 4, right of 9, 3 pixels higher."""
    train = RANDOM.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    query = train[4].copy()
    query[:13, 8:] = train[9, 3:, 8:]
    return Examples(train), Examples(query[None])


def mapped(store: FeatureStore, train: Examples, queries: Examples, **fields):
    method = make("nda", {"timesteps": (20,), "patches": 5, "low_patches": 4} | fields)
    scores = dense(method.score(None, method.fit(None, train, store), queries, store))
    return scores, method.regions(None, train, queries, store, list(range(len(queries))))


def test_each_half_of_a_picture_comes_from_its_own_image(tmp_path):
    train, query = pasted()
    _, regions = mapped(FeatureStore(tmp_path), train, query)
    images = regions.images[0].tolist()
    leader = regions.here[0].argmax(0)
    assert {images[m] for m in leader[:, :3].ravel()} == {4}
    assert {images[m] for m in leader[2:5, 5:7].ravel()} == {9}
    m = images.index(9)
    np.testing.assert_array_equal(regions.down[0, m, 2:5, 5:7], 3)
    np.testing.assert_array_equal(regions.across[0, m, 2:5, 5:7], 0)
    assert not regions.mirrored.any() and set(regions.size[0, m].ravel().tolist()) <= {4, 5}


def test_a_mirrored_half_is_found_in_the_mirror(tmp_path):
    train, _ = pasted()
    query = Examples(np.ascontiguousarray(train.images[4:5, :, ::-1]))
    _, regions = mapped(FeatureStore(tmp_path), train, query, flips=True)
    m = regions.images[0].tolist().index(4)
    assert regions.mirrored[0, m, 2:6, 2:6].all()
    np.testing.assert_array_equal(regions.across[0, m, 2:6, 2:6], 0)


@pytest.mark.parametrize("fields", [{}, {"noises": 2, "alpha": 0.3}, {"timesteps": (50, 300), "topk": 3}])
def test_maps_sum_to_scores(fields, tmp_path):
    train, query = pasted()
    scores, regions = mapped(FeatureStore(tmp_path), train, query, **fields)
    expected = scores[0, regions.images[0]]
    np.testing.assert_allclose(regions.there[0].sum((1, 2)), expected, rtol=2e-3)
    np.testing.assert_allclose(regions.here[0].sum((1, 2)) * 4, expected, rtol=2e-3)  # tiles of 2 × 2 pixels
    assert np.all(np.diff(expected) <= 1e-5)


def test_maps_of_one_query_are_those_among_many(tmp_path):
    train, _ = pasted()
    queries = Examples(RANDOM.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    method = make("nda", {"timesteps": (100,)})
    store = FeatureStore(tmp_path)
    many, one = (method.regions(None, train, queries, store, rows) for rows in ([0, 1, 2], [1]))
    np.testing.assert_array_equal(many.images[1], one.images[0])
    np.testing.assert_array_equal(many.here[1], one.here[0])


def test_half_of_the_images_lead_in_score_and_half_in_parts():
    scores, led = np.arange(10.0), np.zeros(10)
    led[[0, 1]] = 5, 9
    assert atlas.leading(scores, led, 4).tolist() == [9, 8, 1, 0]
    assert sorted(atlas.leading(scores[:3], led[:3], 8).tolist()) == [0, 1, 2]


def test_tiles_are_whole_pixels_and_cover_all():
    assert edges(8, TILES).tolist() == list(range(9)) and edges(5, TILES).tolist() == list(range(6))
    values = RANDOM.normal(size=(2, 33, 20))
    assert tiled(values, GRAIN).shape == (2, 16, 16)
    np.testing.assert_allclose(tiled(values, GRAIN).sum((1, 2)), values.sum((1, 2)))


def test_a_file_that_lacks_something_is_refused(tmp_path):
    train, query = pasted()
    _, regions = mapped(FeatureStore(tmp_path), train, query)
    write_regions(tmp_path / "regions.npz", regions)
    read = read_regions(tmp_path / "regions.npz")
    assert read is not None
    np.testing.assert_array_equal(read.here, regions.here)
    np.savez(tmp_path / "regions.npz", queries=regions.queries)
    with pytest.raises(DataError, match="lacks `images`"):
        read_regions(tmp_path / "regions.npz")
    assert read_regions(tmp_path / "none.npz") is None


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("queries", lambda column: column[:, None]),
        ("images", lambda column: column.astype(np.float32)),
        ("images", lambda column: column.ravel()),
        ("here", lambda column: column[..., 0]),
        ("there", lambda column: column[0]),
        ("down", lambda column: column[:, :, :1]),
        ("mirrored", lambda column: column.astype(str)),
    ],
)
def test_damaged_maps_are_told_plainly(name, damage, tmp_path):
    arrays = {each: np.zeros((1, 2, 4, 4), np.int16) for each in ("here", "there", "down", "across", "size", "mirrored")}
    arrays |= {each: arrays[each].astype(np.float32) for each in ("here", "there")} | {"mirrored": arrays["mirrored"] > 0}
    arrays |= {"queries": np.zeros(1, np.int64), "images": np.zeros((1, 2), np.int64)}
    np.savez(tmp_path / "regions.npz", **arrays)
    assert read_regions(tmp_path / "regions.npz") is not None
    np.savez(tmp_path / "regions.npz", **(arrays | {name: damage(arrays[name])}))
    with pytest.raises(DataError, match=r"is .* beside `images` .* Make the run again with --force"):
        read_regions(tmp_path / "regions.npz")
