"""Maps of a query: what they sum to, and that they point at the right patch."""

from dataclasses import fields, replace

import numpy as np
import pytest

from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.examples import Examples, Text
from headwater.methods import make
from headwater.patches import maps as mapping
from headwater.patches.atlas import Atlas
from headwater.patches.explained import Explained
from headwater.patches.posterior import PatchPosterior
from headwater.patches.regions import read_regions, write_regions
from headwater.patches.rows import pack_explained, unpack_explained
from headwater.patches.threads import Threads
from headwater.patches.tiles import Foremost
from headwater.patches.views import Views
from headwater.run import first_queries
from headwater.scores import dense
from headwater.workers import Here

RANDOM = np.random.Generator(np.random.Philox(17))


def pasted() -> tuple[Examples, Examples]:
    """30 training images of noise, and a query of two of their halves: left of number 4, right of 9, 3 pixels
    higher."""
    train = RANDOM.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    query = train[4].copy()
    query[:13, 8:] = train[9, 3:, 8:]
    return Examples(train), Examples(query[None])


def mapped(store: FeatureStore, train: Examples, queries: Examples, **fields):
    method = make("nda", {"timesteps": (20,), "patches": 5, "low_patches": 4} | fields)
    index = method.fit(None, train, store)
    scores = dense(method.score(index, queries, store))
    return scores, method.regions(index, queries, store, list(range(len(queries))))


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


@pytest.mark.parametrize(("alpha", "size"), [(1.0, 5), (0.0, 4)])
def test_every_part_has_a_patch_that_lies_where_it_was_compared(alpha, size, tmp_path):
    """The patch of a tile has its middle in it, and lies as near to its match as to any patch of the
    image."""
    train = RANDOM.integers(0, 256, (6, 24, 24, 2), dtype=np.uint8)
    query = RANDOM.integers(0, 256, (1, 24, 24, 2), dtype=np.uint8)
    _, regions = mapped(
        FeatureStore(tmp_path), Examples(train), Examples(query), timesteps=(20,), alpha=alpha, noises=0
    )
    np.testing.assert_array_equal(regions.size, size)
    tested = 0
    for m, i, j in np.ndindex(regions.here.shape[1:]):
        top, left, down, across = (
            int(getattr(regions, name)[0, m, i, j]) for name in ("top", "left", "down", "across")
        )
        for first, part in ((top, i), (left, j)):
            assert 3 * part - 0.5 <= first + (size - 1) / 2 <= 3 * part + 2.5
        if min(top, left) >= 0 and max(top, left) + size <= 24:
            patch = patches_within(query[0], size, alpha)[top, left]
            distances = np.square(patches_within(train[regions.images[0, m]], size, alpha) - patch).sum(
                (2, 3, 4)
            )
            assert distances[top + down, left + across] == pytest.approx(distances.min(), rel=1e-5)
            tested += 1
    assert tested > 100


def patches_within(image, size, alpha):
    """Every patch that lies inside an image: its pixels, or where alpha is 0 the sums of its 2×2 cells."""
    patches = np.lib.stride_tricks.sliding_window_view(image / 127.5 - 1, (size, size), axis=(0, 1))
    return patches if alpha else patches.reshape(*patches.shape[:3], size // 2, 2, size // 2, 2).sum((4, 6))


def test_a_mirrored_half_is_found_in_the_mirror(tmp_path):
    train, _ = pasted()
    query = Examples(np.ascontiguousarray(train.images[4:5, :, ::-1]))
    _, regions = mapped(FeatureStore(tmp_path), train, query, flips=True)
    m = regions.images[0].tolist().index(4)
    assert regions.mirrored[0, m, 2:6, 2:6].all()
    np.testing.assert_array_equal(regions.across[0, m, 2:6, 2:6], 0)


@pytest.mark.parametrize(
    "fields", [{}, {"noises": 2, "alpha": 0.3}, {"timesteps": (50, 300), "topk": 3}, {"timesteps": (0, 3)}]
)
def test_maps_sum_to_scores(fields, tmp_path):
    train, query = pasted()
    scores, regions = mapped(FeatureStore(tmp_path), train, query, **fields)
    expected = scores[0, regions.images[0]]
    np.testing.assert_allclose(regions.there[0].sum((1, 2)), expected, rtol=1e-5, atol=1e-6)
    # tiles of 2 × 2 pixels
    np.testing.assert_allclose(regions.here[0].sum((1, 2)) * 4, expected, rtol=1e-5, atol=1e-6)
    assert np.all(np.diff(expected) <= 1e-5)


def test_maps_of_one_query_are_those_among_many(tmp_path):
    train, _ = pasted()
    queries = Examples(RANDOM.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    method = make("nda", {"timesteps": (100,)})
    store = FeatureStore(tmp_path)
    one = method.regions(method.fit(None, train, store), queries, FeatureStore(tmp_path / "one"), [1])
    many = method.regions(method.fit(None, train, store), queries, store, [0, 1, 2])
    alone = method.regions(
        method.fit(None, train, store), queries, FeatureStore(tmp_path / "crew", crew=Here()), [0, 1, 2]
    )
    assert one.queries.tolist() == [1]
    for field in fields(many):
        np.testing.assert_array_equal(getattr(alone, field.name), getattr(many, field.name))
        if field.name != "queries":
            np.testing.assert_array_equal(getattr(many, field.name)[1], getattr(one, field.name)[0])


def test_maps_are_stored_and_progress_is_reported(tmp_path):
    train, query = pasted()
    reports = []
    store = FeatureStore(tmp_path, lambda count, total: reports.append((count, total)))
    _, first = mapped(store, train, query)
    assert reports[-1] == (1, 1) and len(reports) == 3  # two resolutions, one map
    _, again = mapped(store, train, query)
    assert len(reports) == 3
    np.testing.assert_array_equal(again.here, first.here)


def test_evidence_keeps_its_digits(tmp_path):
    """At little noise it is so large that float32 would round it by hundredths, and weights with it by per
    cents."""
    evidence = RANDOM.normal(size=64) * 1e6
    leaders = Foremost(RANDOM.random((64, 3)), RANDOM.integers(0, 3, (64, 3)))
    row = unpack_explained(pack_explained([Explained(np.ones(3), evidence, leaders)] * 2), 3, 2, (8, 8))
    for unpacked in row.evidence:
        np.testing.assert_allclose(unpacked, evidence, rtol=1e-13)
    for unpacked in row.leaders:
        np.testing.assert_array_equal(unpacked.column, leaders.column)
        np.testing.assert_allclose(unpacked.value, leaders.value, rtol=1e-6)


def test_labels_and_prompts_make_no_rows_anew(tmp_path):
    """A run scores examples with their prompts embedded, and maps those without: to NDA they are the same
    pictures."""
    train, query = pasted()
    reports = []
    store = FeatureStore(tmp_path, lambda count, total: reports.append(count))
    _, bare = mapped(store, train, query)
    before = len(reports)
    words = Text(np.zeros(30, np.int64), {"prompt": np.zeros((1, 2), np.float32)})
    named = replace(train, labels=np.arange(30), prompts=("a word",) * 30, text=words)
    _, regions = mapped(store, named, replace(query, labels=np.array([3])))
    assert len(reports) == before
    np.testing.assert_array_equal(regions.images, bare.images)


def test_a_few_images_are_drawn_for_their_scores_and_others_for_the_parts_they_lead_in():
    scores, most = np.arange(10.0), np.zeros((5, 10))
    most[[0, 1, 2, 3], [1, 0, 0, 4]] = 1
    most[4, 9] = 1
    assert mapping.leading(scores, most, 4, 2).tolist() == [
        9,
        8,
        4,
        0,
    ]  # 0 leads in two parts, 4 and 1 in one: 4 has more
    assert sorted(mapping.leading(scores[:3], most[:, :3], 8, 2).tolist()) == [0, 1, 2]


def test_no_image_explains_more_than_lists_allow():
    tables = RANDOM.random((3, 4, 20))
    listed = [
        (
            0.2 * (j + 1),
            Foremost.none(4, 6).beside(np.arange(9), table[:, :9]).beside(np.arange(9, 20), table[:, 9:]),
        )
        for j, table in enumerate(tables)
    ]
    full = sum(weight * table for (weight, _), table in zip(listed, tables, strict=True))
    most = mapping.at_most(listed, 20)
    assert (most >= full - 1e-12).all()
    everywhere = np.all(
        [[np.isin(np.arange(20), row) for row in leaders.column] for _, leaders in listed], axis=0
    )
    assert everywhere.any()
    np.testing.assert_allclose(most[everywhere], full[everywhere])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Maps of three digits, and how much of each tile every training image explains, each traced by
    itself."""
    bank, store = open_bank("digits"), FeatureStore(tmp_path_factory.mktemp("store"))
    train, queries = bank.train, bank.queries.take(first_queries(bank.queries, 3))
    method = make("nda", {"timesteps": 3})
    return method.regions(method.fit(None, train, store), queries, store, [0, 1, 2]), explained(
        method, train, queries, store
    )


def explained(method, train, queries, store):
    index = method.fit(None, train, store)
    full = np.zeros((len(queries), len(train), 8, 8))
    for step, weight in method.steps(index):
        comparison, alpha_bar = step.comparison(2**30), float(index.alpha_bar[step.t])
        for q, (x, content) in enumerate(zip(queries.pixels(), queries.hashes, strict=True)):
            with Threads(1) as threads:
                (noisy,) = step.noised(x, content, alpha_bar)
                evidence = (
                    PatchPosterior(comparison, noisy, Views(train.images), threads).explained().evidence
                )
                for low in range(0, len(train), 32):
                    block = Views(train.images[low : low + 32])
                    traces = PatchPosterior(comparison, noisy, block, threads).traces(evidence)
                    full[q, low : low + 32] += weight * Atlas.of(traces, comparison.patches, 1).query_tiles
    return full


def test_maps_of_digits_show_the_true_leader_of_almost_every_part(digits):
    """Of 16 images, half by score, it was the leader in some six of ten parts."""
    regions, full = digits
    best, true = regions.here.max(1), full.max(1)
    certain = best >= true * (1 - 1e-5)
    assert certain.mean() > 0.93
    for q, images in enumerate(regions.images):
        np.testing.assert_allclose(regions.here[q], full[q, images], rtol=1e-4, atol=1e-8)


def test_a_part_whose_leader_is_certain_has_no_other(digits):
    regions, full = digits
    best, true = regions.here.max(1), full.max(1)
    certain = best >= regions.others * (1 - 1e-5)
    assert certain.mean() > 0.75
    assert (best[certain] >= true[certain] * (1 - 1e-5)).all()
    for q, images in enumerate(regions.images):
        rest = np.delete(full[q], images, axis=0).max(0)
        assert (rest <= regions.others[q] * (1 + 1e-5)).all()


def test_a_file_that_lacks_something_is_refused(tmp_path):
    train, query = pasted()
    _, regions = mapped(FeatureStore(tmp_path), train, query)
    write_regions(tmp_path / "regions.npz", regions)
    read = read_regions(tmp_path / "regions.npz")
    assert read is not None
    np.testing.assert_array_equal(read.here, regions.here)
    np.savez(tmp_path / "regions.npz", queries=regions.queries, sides=regions.sides)
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
def test_damaged_maps_are_refused(name, damage, tmp_path):
    names = ("here", "there", "top", "left", "down", "across", "size", "mirrored")
    arrays = {key: np.zeros((1, 2, 4, 4), np.int16) for key in names}
    arrays |= {key: arrays[key].astype(np.float32) for key in ("here", "there")} | {
        "mirrored": arrays["mirrored"] > 0
    }
    arrays |= {
        "queries": np.zeros(1, np.int64),
        "images": np.zeros((1, 2), np.int64),
        "sides": np.array([4, 4]),
    }
    arrays["others"] = np.zeros((1, 4, 4), np.float32)
    np.savez(tmp_path / "regions.npz", **arrays)
    assert read_regions(tmp_path / "regions.npz") is not None
    np.savez(tmp_path / "regions.npz", **(arrays | {name: damage(arrays[name])}))
    with pytest.raises(DataError, match=rf"`{name}` in .* does not fit the rest. Make the run again"):
        read_regions(tmp_path / "regions.npz")
