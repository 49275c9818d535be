"""NDA against its formula with every patch cut out, and on pictures with a known answer."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

from headwater.diffusion.schedule import linear
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.methods import make
from headwater.methods.nda import NDA, usual
from headwater.methods.optimal_score import OptimalScore
from headwater.methods.patch_similarity import PatchSimilarity
from headwater.models import unet
from headwater.patches.growing import PART, part_slices
from headwater.scores import dense

RANDOM = np.random.Generator(np.random.Philox(5))


def examples(n: int, height: int = 8, width: int = 8, channels: int = 1) -> Examples:
    return Examples(RANDOM.integers(0, 256, (n, height, width, channels), dtype=np.uint8))


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path)


def scores(store: FeatureStore, train: Examples, queries: Examples, **fields) -> np.ndarray:
    method = make("nda", fields)
    return dense(method.score(method.fit(None, train, store), queries, store))


def formula(
    train: Examples, x_t: np.ndarray, alpha_bar: float, size: int, coarse: bool, topk: int, cut_out
) -> np.ndarray:
    """Σ_a Σ_{b ∈ top-k of i} softmax over all patches of all images."""
    pad, total = (size - 1) // 2, np.zeros(len(train))
    places = [range(side + 2 * pad - size + 1) for side in x_t.shape[1:]]
    pictures = np.sqrt(alpha_bar) * (train.images.transpose(0, 3, 1, 2) / 127.5 - 1)
    for a in ((i, j) for i in places[0] for j in places[1]):
        distances = [np.array(cut_out(x_t, picture, size, coarse, a)) for picture in pictures]
        least = min(d[0] for d in distances)
        weights = [np.exp(-(d - least) / (2 * (1 - alpha_bar))) for d in distances]
        total += [w[:topk].sum() for w in weights] / sum(w.sum() for w in weights)
    return total


def by_formula(store: FeatureStore, train: Examples, queries: Examples, fields: dict, cut_out) -> np.ndarray:
    """The mean over steps and noises."""
    alpha_bar, method = linear().alpha_bar, make("nda", fields)
    expected = np.zeros((len(queries), len(train)))
    for step, weight in method.steps(method.fit(None, train, store)):
        for q, (x, content) in enumerate(zip(queries.pixels(), queries.hashes, strict=True)):
            noises = list(step.noised(x, content, alpha_bar[step.t]))
            for noisy in noises:
                x_t = noisy.x_t.astype(float)
                values = formula(train, x_t, alpha_bar[step.t], step.size, step.coarse, step.topk, cut_out)
                expected[q] += weight * values / len(noises)
    return expected


def test_scores_are_the_formula(store, cut_out):
    train, queries = examples(5), examples(2)
    fields = {
        "timesteps": (100, 400),
        "patches": (3, 5),
        "low_patches": (4, 2),
        "alpha": (0.7, 0.2),
        "topk": 4,
        "seed": 2,
    }
    values = scores(store, train, queries, **fields)
    expected = by_formula(store, train, queries, fields, cut_out)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_training_image_as_query_has_the_largest_score(channels, store):
    train = examples(40, channels=channels)
    values = scores(store, train, train.take([3, 17]), timesteps=(20,), patches=5, low_patches=4)
    assert values.argmax(1).tolist() == [3, 17]
    assert (values[0, 3] > 10 * np.delete(values[0], 3)).all()


def test_a_mirrored_training_image_is_found_with_flips(store):
    train = examples(20)
    query = Examples(np.ascontiguousarray(train.images[6:7, :, ::-1]))
    plain, mirrored = (
        scores(store, train, query, timesteps=(20,), patches=5, low_patches=4, flips=flips)
        for flips in (False, True)
    )
    assert mirrored.argmax() == 6 and mirrored[0, 6] > 5 * plain[0, 6]


def test_noise_is_shared_or_each_querys_or_absent(store):
    index = make("nda", {}).fit(None, examples(3), store)
    x = np.zeros((1, 8, 8), np.float32)

    def drawn(content: str, **fields) -> list[np.ndarray]:
        step, _ = make("nda", {"timesteps": (100,), **fields}).steps(index)[0]
        return [noisy.x_t for noisy in step.noised(x, content, 0.9)]

    assert not np.array_equal(drawn("a"), drawn("b"))
    np.testing.assert_array_equal(drawn("a", shared_noise=True), drawn("b", shared_noise=True))
    assert len(drawn("a", noises=3)) == 3 and not drawn("a", noises=0)[0].any()


def test_scores_are_means_over_noises_and_stored_steps_are_not_computed_again(store, cut_out):
    train, queries = examples(6), examples(3)
    fields = {"timesteps": (100, 300), "patches": 3, "low_patches": 4, "noises": 2}
    values = scores(store, train, queries, **fields)
    expected = by_formula(store, train, queries, fields, cut_out)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6 * expected.max())
    totals = []
    watched = FeatureStore(store.root, lambda _, total: totals.append(total))
    np.testing.assert_array_equal(scores(watched, train, queries, **fields), values)
    for alpha in (0.0, 1.0):
        scores(watched, train, queries, **fields, alpha=alpha)
    assert not totals  # another mixture of the same steps is free


def test_a_rectangle_and_its_largest_patches(store, cut_out):
    train, queries = examples(4, 6, 9), examples(2, 6, 9)
    fields = {"timesteps": (200,), "patches": 5, "low_patches": 6}
    expected = by_formula(store, train, queries, fields, cut_out)
    np.testing.assert_allclose(
        scores(store, train, queries, **fields), expected, rtol=1e-4, atol=1e-6 * expected.max()
    )
    for larger, name in (({"patches": 7}, "patches"), ({"low_patches": 8}, "low_patches")):
        with pytest.raises(OptionError, match=f"{name} has"):
            scores(store, train, queries, **(fields | larger))


def test_usual_sizes_fit_and_grow_with_noise():
    alpha_bar = linear().alpha_bar
    for side in (4, 8, 16, 32, 64, 256):
        for coarse in (False, True):
            sizes = [usual(side, alpha_bar[t], coarse=coarse) for t in range(0, 1000, 50)]
            assert sizes == sorted(sizes) and sizes[0] >= 1 and sizes[-1] <= side
            assert all(size % 2 == 1 - coarse for size in sizes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patches": 9, "timesteps": (100,)}, "patches has 9; the images have 8 pixels. Expected at most 7"),
        (
            {"low_patches": 10, "timesteps": (100,)},
            "low_patches has 10; the images have 8 pixels. Expected at most 8",
        ),
        ({"patches": 4}, "expected odd sizes"),
        ({"low_patches": 5}, "expected even sizes"),
        ({"low_patches": 0}, "expected even sizes"),
        ({"timesteps": (100, 1000)}, r"timesteps has 100 … 1000; the schedule has 0 … 999"),
        ({"timesteps": (-1,)}, "timesteps has -1"),
        ({"timesteps": 0}, "expected a count of 1 or more"),
        ({"timesteps": (100, 200), "patches": (3, 5, 7)}, "patches has 3 values for 2 timesteps"),
        ({"timesteps": 3, "alpha": (0.5, 0.5)}, "alpha has 2 values for 3 timesteps"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"topk": 0}, "topk is 0"),
        ({"noises": -1}, "noises is -1"),
        ({"timesteps": 501}, "timesteps is 501; the first half of the schedule has 500 steps"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(fields, message, store):
    with pytest.raises(OptionError, match=message):
        make("nda", fields).fit(None, examples(2), store)


def test_queries_of_another_size_are_refused(store):
    method = make("nda", {"timesteps": (100,), "patches": 3, "low_patches": 4})
    index = method.fit(None, examples(3), store)
    with pytest.raises(DataError, match="Queries are 6×8 with 1 channels, training images 8×8 with 1"):
        list(method.score(index, examples(1, 6, 8), store))


def test_a_resolution_without_weight_needs_no_size(store):
    """Pictures of one pixel have no cells; alpha 1 needs none."""
    images = Examples(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 60)
    method = NDA(alpha=1.0, timesteps=(500,))
    values = next(iter(method.score(method.fit(None, images, store), images, store)))
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-6)
    with pytest.raises(OptionError, match="low_patches"):
        next(iter(NDA(timesteps=(500,)).score(NDA(timesteps=(500,)).fit(None, images, store), images, store)))


def built(kind, **fields):
    """A method built without the type checks of these tests, as in plain Python."""
    method = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(method, field.name, fields.get(field.name, field.default))
    method.__post_init__()
    return method


@pytest.mark.parametrize("kind", [NDA, OptimalScore, PatchSimilarity])
def test_lists_are_tuples_in_python_too_and_wrong_types_are_refused(kind):
    name = "timesteps" if kind is not PatchSimilarity else "patch"
    with pytest.raises(OptionError, match=f"{name} is 2.5; expected a whole number"):
        built(kind, **{name: 2.5})
    with pytest.raises(OptionError, match=f"{name} is True"):
        built(kind, **{name: True})


def test_lists_are_taken_as_tuples():
    assert built(NDA, timesteps=[100, 300], patches=[5, 7]) == NDA(timesteps=(100, 300), patches=(5, 7))
    assert built(OptimalScore, timesteps=[100]).timesteps == (100,)
    for fields in ({"topk": 2.5}, {"noises": True}, {"patches": [5, "7"]}):
        with pytest.raises(OptionError, match=f"{next(iter(fields))} is"):
            built(NDA, **fields)


@pytest.mark.parametrize("kind", [NDA, OptimalScore])
def test_a_step_without_noise_is_refused(kind, store, smallest):
    model = unet.new(smallest, 0, linear(start=0.0))
    with pytest.raises(OptionError, match=r"timesteps has 0, where the schedule adds no noise .*: 1 or more"):
        kind(timesteps=(0, 100)).fit(model, examples(2), store)
    kind(timesteps=(1, 100)).fit(model, examples(2), store)


def test_lists_that_do_not_fit_the_memory_are_refused_and_more_memory_takes_them(store):
    """Pictures of 600×600 pixels: about 360,000 patches; the lists of a row would hold 10 × topk of them."""
    train = Examples(np.zeros((1, 600, 600, 1), np.uint8))
    method = NDA(topk=30_000, timesteps=(500,))
    with pytest.raises(
        OptionError, match=r"topk is 30000; .* 600×600 pixels would take 2\d\.\d GiB a thread; .* memory"
    ):
        method.fit(None, train, store)
    method.fit(None, train, replace(store, memory=2**35))
    NDA(timesteps=(500,)).fit(None, train, store)


def test_the_memory_is_the_store_s(store):
    assert NDA().fit(None, examples(2), replace(store, memory=12345)).memory == 12345


def parts_in(store: FeatureStore) -> list[dict]:
    """The settings of the parts of training sets in the store."""
    settings = [json.loads(path.read_text()) for path in sorted(store.root.glob("features/*/settings.json"))]
    return [entry for entry in settings if "what" in entry]


@pytest.mark.parametrize("fields", [{}, {"flips": True, "noises": 2, "topk": 5, "patches": 3}])
def test_growing_changes_no_score_and_no_map(fields, tmp_path):
    train, queries = examples(PART + 40, 6, 7), examples(3, 6, 7)
    settings = {"timesteps": [50, 400], **fields}
    plain, grown = (FeatureStore(tmp_path / name) for name in ("plain", "grown"))
    one = scores(plain, train, queries, **settings)
    np.testing.assert_allclose(
        scores(grown, train, queries, **settings, growing=True), one, rtol=2e-5, atol=1e-7
    )
    assert len(parts_in(grown)) == 2 * 4 and not parts_in(plain)
    methods = [(plain, make("nda", settings)), (grown, make("nda", {**settings, "growing": True}))]
    maps = [
        method.regions(method.fit(None, train, where), queries, where, [0, 2]) for where, method in methods
    ]
    np.testing.assert_array_equal(maps[0].images, maps[1].images)
    np.testing.assert_allclose(maps[0].here, maps[1].here, rtol=1e-4, atol=1e-6)


def test_with_more_images_only_new_and_incomplete_parts_are_compared(tmp_path):
    everything, queries = examples(2 * PART + 50, 5, 5), examples(2, 5, 5)
    store, settings = FeatureStore(tmp_path / "grown"), {"timesteps": [300], "alpha": 1, "patches": 3}
    lasting = {}
    for n, new in ((PART + 40, 2), (2 * PART + 50, 2), (2 * PART + 50, 0)):
        values = scores(store, everything.take(range(n)), queries, **settings, growing=True)
        stored = {entry["train"]: entry for entry in parts_in(store)}
        assert len(stored) == len(lasting) + new
        lasting = stored
        plain = scores(FeatureStore(tmp_path / f"plain-{n}"), everything.take(range(n)), queries, **settings)
        np.testing.assert_allclose(values, plain, rtol=2e-5, atol=1e-9)


def test_parts_are_small_where_pictures_are_large_and_stay_as_images_come():
    assert [part.stop for part in part_slices(600, 32 * 32)] == [256, 512, 600]
    assert [part.stop for part in part_slices(70, 256 * 256)] == [32, 64, 70]
    for n in (1, 255, 256, 257, 900):
        assert part_slices(n, 1024)[:-1] == part_slices(n + 300, 1024)[: len(part_slices(n, 1024)) - 1]
