"""The posterior over patches: however it is computed, one answer; and the bound on what is left out."""

from dataclasses import replace

import numpy as np
import pytest

from headwater.patches.geometry import Patches
from headwater.patches.noise import Noisy
from headwater.patches.posterior import NEGLIGIBLE, Comparison, PatchPosterior
from headwater.patches.threads import Threads
from headwater.patches.views import Views

RANDOM = np.random.Generator(np.random.Philox(3))
IMAGES = RANDOM.integers(0, 256, (150, 10, 10, 2), dtype=np.uint8)


def noisy(variance: float = 0.3, dtype: type = np.float64) -> Noisy:
    signal = np.sqrt(1 - variance)
    x = IMAGES[7].transpose(2, 0, 1) / 127.5 - 1
    return Noisy(
        (signal * x + np.sqrt(variance) * RANDOM.normal(size=x.shape)).astype(dtype), float(signal), variance
    )


def explained(comparison: Comparison, picture: Noisy, number: int = 1, images: np.ndarray = IMAGES):
    with Threads(number) as threads:
        return PatchPosterior(comparison, picture, Views(images), threads).explained()


COMPARISONS = [
    Comparison(Patches(3), 6),
    Comparison(Patches(4, coarse=True), 6),
    Comparison(Patches(5), 100, flips=True),
]


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_weights_of_a_patch_sum_to_one(comparison):
    noised = noisy()
    scored = explained(replace(comparison, top=10**6), noised)
    down, across = comparison.patches.windows(10, 10)
    assert scored.scores.sum() == pytest.approx(down.number * across.number, rel=1e-9)
    assert (scored.scores >= 0).all() and len(scored.scores) == 150
    assert explained(comparison, noised).scores.sum() <= scored.scores.sum()


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_latents_are_compared_as_pixels_of_the_same_values_are(comparison):
    """And with mirror images of their own, these."""
    noised, pixels = noisy(), Views(IMAGES)
    values = pixels.part()
    latents = Views(values, np.ascontiguousarray(values[..., ::-1]))
    blank = Views(values, np.zeros_like(values))
    with Threads(1) as threads:
        exact, latent, changed = (
            PatchPosterior(comparison, noised, views, threads).explained()
            for views in (pixels, latents, blank)
        )
    np.testing.assert_allclose(latent.scores, exact.scores, rtol=1e-5)
    np.testing.assert_allclose(latent.evidence, exact.evidence, atol=1e-5)
    assert np.allclose(changed.scores, exact.scores, rtol=1e-4) != comparison.flips


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_memory_and_threads_change_nothing(comparison):
    noised = noisy()
    scored = explained(comparison, noised)
    np.testing.assert_array_equal(explained(comparison, noised, number=3).scores, scored.scores)
    twice = explained(replace(comparison, memory=0), noised)
    np.testing.assert_allclose(twice.scores, scored.scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(twice.evidence, scored.evidence, rtol=1e-12)


def test_float32_agrees_with_float64():
    for variance in (0.1, 0.9):
        noised = noisy(variance)
        exact = explained(COMPARISONS[0], noised).scores
        single = explained(COMPARISONS[0], noised._replace(x_t=noised.x_t.astype(np.float32))).scores
        large = exact > 1e-6 * exact.max()
        np.testing.assert_allclose(single[large], exact[large], rtol=1e-4)


def test_pruning_stays_within_its_bound():
    noised, comparison = noisy(0.1), replace(COMPARISONS[0], negligible=1e-6)
    exact, pruned = (
        explained(variant, noised).scores
        for variant in (replace(comparison, negligible=NEGLIGIBLE), comparison)
    )
    assert (pruned <= exact / (1 - comparison.negligible * 150 * 64) + 1e-9).all()
    assert (
        pruned >= exact - comparison.negligible * comparison.top * 100 - 1e-9
    ).all() and not np.array_equal(pruned, exact)


def test_mirrored_copies_are_the_same_as_mirrored_images():
    noised = noisy()
    mirrored = explained(replace(COMPARISONS[0], top=10**6, flips=True), noised).scores
    both = explained(
        replace(COMPARISONS[0], top=10**6), noised, images=np.concatenate([IMAGES, IMAGES[:, :, ::-1]])
    ).scores
    np.testing.assert_allclose(mirrored, both[:150] + both[150:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("comparison", [*COMPARISONS, Comparison(Patches(6, coarse=True), 3, flips=True)])
def test_traces_of_an_image_sum_to_its_score_on_either_side(comparison):
    noised, rows = noisy(), [7, 3, 140, 20]
    with Threads(1) as threads:
        scored = PatchPosterior(comparison, noised, Views(IMAGES), threads).explained()
        traces = PatchPosterior(comparison, noised, Views(IMAGES[rows]), threads).traces(scored.evidence)
    for side in (traces.query_map, traces.image_map):
        np.testing.assert_allclose(side.sum((1, 2)), scored.scores[rows], rtol=1e-9)
        assert (side >= 0).all()


def test_the_nearest_patch_is_the_one_with_the_least_distance(cut_out):
    comparison, noised = Comparison(Patches(3), 4, flips=True), noisy()
    with Threads(1) as threads:
        evidence = PatchPosterior(comparison, noised, Views(IMAGES), threads).explained().evidence
        traces = PatchPosterior(comparison, noised, Views(IMAGES[7:8]), threads).traces(evidence)
    y = noised.signal * (IMAGES[7].transpose(2, 0, 1) / 127.5 - 1)
    for a in ((0, 0), (4, 5), (9, 3)):
        distances = [cut_out(noised.x_t, picture, 3, False, a)[0] for picture in (y, y[..., ::-1])]
        assert traces.mirrored[0][a] == (distances[1] < distances[0])
        b = (a[0] + traces.down[0][a], a[1] + traces.across[0][a])
        picture = y[..., ::-1] if traces.mirrored[0][a] else y
        inside = (slice(None), slice(max(0, a[0] - 1), a[0] + 2), slice(max(0, a[1] - 1), a[1] + 2))
        match = (slice(None), slice(max(0, b[0] - 1), b[0] + 2), slice(max(0, b[1] - 1), b[1] + 2))
        assert np.square(noised.x_t[inside] - picture[match]).sum() == pytest.approx(min(distances), rel=1e-9)
        weight = np.exp(-min(distances) / (2 * noised.variance) - evidence.reshape(10, 10)[a])
        assert traces.weight[0][a] == pytest.approx(weight, rel=1e-9)


def test_equal_patches_share_what_counts():
    images = np.full((3, 8, 8, 1), 200, np.uint8)
    noised = Noisy(np.full((1, 8, 8), 0.1), 0.9, 0.19)
    comparison = Comparison(Patches(3), 5)
    with Threads(1) as threads:
        scored = PatchPosterior(comparison, noised, Views(images), threads).explained()
        traces = PatchPosterior(comparison, noised, Views(images), threads).traces(scored.evidence)
    np.testing.assert_allclose(traces.image_map.sum((1, 2)), scored.scores, rtol=1e-9)
    inside = traces.image_map[0, 1:7, 1:7]
    np.testing.assert_allclose(inside, inside[0, 0])


def test_equal_patches_share_what_counts_where_lists_were_full():
    """Flat pictures of more patches than a list holds: either map sums to the score."""
    images = np.full((2, 40, 40, 1), 200, np.uint8)
    images[1, 10:14, 20:24] = 30
    noised, comparison = (
        Noisy(images[0].transpose(2, 0, 1) / 255.0 + 0.1 * RANDOM.normal(size=(1, 40, 40)), 0.9, 0.19),
        Comparison(Patches(3), 5),
    )
    with Threads(1) as threads:
        scored = PatchPosterior(comparison, noised, Views(images), threads).explained()
        traces = PatchPosterior(comparison, noised, Views(images), threads).traces(scored.evidence)
    np.testing.assert_allclose(traces.query_map.sum((1, 2)), scored.scores, rtol=1e-6)
    np.testing.assert_allclose(traces.image_map.sum((1, 2)), scored.scores, rtol=1e-6)


@pytest.mark.parametrize("variance", [1e-4, 1e-3])
def test_float32_is_right_where_there_is_hardly_any_noise(variance):
    """Evidence is then thousands of nats, which float32 would round to hundredths."""
    noised = noisy(variance)
    comparison = Comparison(Patches(9), 6)
    exact = explained(comparison, noised).scores
    single = explained(comparison, noised._replace(x_t=noised.x_t.astype(np.float32))).scores
    large = exact > 1e-6 * exact.max()
    np.testing.assert_allclose(single[large], exact[large], rtol=1e-4)
