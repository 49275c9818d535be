"""The posterior over patches: however it is computed, one answer; and the bound on what is left out."""

from dataclasses import replace

import numpy as np
import pytest

from headwater.patches.posterior import NEGLIGIBLE, Noisy, Patches, Question, hands
from headwater.patches.views import Views

RANDOM = np.random.Generator(np.random.Philox(3))
IMAGES = RANDOM.integers(0, 256, (150, 10, 10, 2), dtype=np.uint8)


def noisy(variance: float = 0.3, dtype: type = np.float64) -> Noisy:
    signal = np.sqrt(1 - variance)
    x = IMAGES[7].transpose(2, 0, 1) / 127.5 - 1
    return Noisy((signal * x + np.sqrt(variance) * RANDOM.normal(size=x.shape)).astype(dtype), float(signal), variance)


def answer(question: Question, of: Noisy, threads: int = 1, images: np.ndarray = IMAGES):
    with hands(threads) as workers:
        return question.answer(of, Views(images), workers)


QUESTIONS = [Question(Patches(3), 6), Question(Patches(4, coarse=True), 6), Question(Patches(5), 100, flips=True)]


@pytest.mark.parametrize("question", QUESTIONS)
def test_weights_of_a_patch_sum_to_one(question):
    of = noisy()
    found = answer(replace(question, top=10**6), of)
    down, across = question.patches.windows(10, 10)
    assert found.scores.sum() == pytest.approx(down.number * across.number, rel=1e-9)
    assert (found.scores >= 0).all() and len(found.scores) == 150
    assert answer(question, of).scores.sum() <= found.scores.sum()


@pytest.mark.parametrize("question", QUESTIONS)
def test_latents_are_compared_as_pixels_of_the_same_values_are(question):
    """And with mirror images of their own, these."""
    of, pixels = noisy(), Views(IMAGES)
    values = pixels.part()
    latents = Views(values, np.ascontiguousarray(values[..., ::-1]))
    other = Views(values, np.zeros_like(values))
    with hands(1) as workers:
        exact, found, changed = (question.answer(of, each, workers) for each in (pixels, latents, other))
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)
    np.testing.assert_allclose(found.evidence, exact.evidence, atol=1e-5)
    assert np.allclose(changed.scores, exact.scores, rtol=1e-4) != question.flips


@pytest.mark.parametrize("question", QUESTIONS)
def test_memory_and_threads_change_nothing(question):
    of = noisy()
    found = answer(question, of)
    np.testing.assert_array_equal(answer(question, of, threads=3).scores, found.scores)
    twice = answer(replace(question, memory=0), of)
    np.testing.assert_allclose(twice.scores, found.scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(twice.evidence, found.evidence, rtol=1e-12)


def test_float32_agrees_with_float64():
    for variance in (0.1, 0.9):
        of = noisy(variance)
        exact = answer(QUESTIONS[0], of).scores
        found = answer(QUESTIONS[0], of._replace(x_t=of.x_t.astype(np.float32))).scores
        large = exact > 1e-6 * exact.max()
        np.testing.assert_allclose(found[large], exact[large], rtol=1e-4)


def test_pruning_stays_within_its_bound():
    of, question = noisy(0.1), replace(QUESTIONS[0], negligible=1e-6)
    exact, pruned = (answer(each, of).scores for each in (replace(question, negligible=NEGLIGIBLE), question))
    assert (pruned <= exact / (1 - question.negligible * 150 * 64) + 1e-9).all()
    assert (pruned >= exact - question.negligible * question.top * 100 - 1e-9).all() and not np.array_equal(pruned, exact)


def test_mirrored_copies_are_the_same_as_mirrored_images():
    of = noisy()
    mirrored = answer(replace(QUESTIONS[0], top=10**6, flips=True), of).scores
    both = answer(replace(QUESTIONS[0], top=10**6), of, images=np.concatenate([IMAGES, IMAGES[:, :, ::-1]])).scores
    np.testing.assert_allclose(mirrored, both[:150] + both[150:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("question", [*QUESTIONS, Question(Patches(6, coarse=True), 3, flips=True)])
def test_traces_of_an_image_sum_to_its_score_on_either_side(question):
    of, some = noisy(), [7, 3, 140, 20]
    with hands(1) as workers:
        found = question.answer(of, Views(IMAGES), workers)
        traces = question.trace(of, Views(IMAGES[some]), found.evidence, workers)
    for side in (traces.here, traces.there):
        np.testing.assert_allclose(side.sum((1, 2)), found.scores[some], rtol=1e-9)
        assert (side >= 0).all()


def test_the_nearest_patch_is_the_one_with_the_least_distance(cut_out):
    question, of = Question(Patches(3), 4, flips=True), noisy()
    with hands(1) as workers:
        evidence = question.answer(of, Views(IMAGES), workers).evidence
        traces = question.trace(of, Views(IMAGES[7:8]), evidence, workers)
    y = of.signal * (IMAGES[7].transpose(2, 0, 1) / 127.5 - 1)
    for a in ((0, 0), (4, 5), (9, 3)):
        each = [cut_out(of.x_t, picture, 3, False, a)[0] for picture in (y, y[..., ::-1])]
        assert traces.mirrored[0][a] == (each[1] < each[0])
        there = (a[0] + traces.down[0][a], a[1] + traces.across[0][a])
        picture = y[..., ::-1] if traces.mirrored[0][a] else y
        inside = (slice(None), slice(max(0, a[0] - 1), a[0] + 2), slice(max(0, a[1] - 1), a[1] + 2))
        other = (slice(None), slice(max(0, there[0] - 1), there[0] + 2), slice(max(0, there[1] - 1), there[1] + 2))
        assert np.square(of.x_t[inside] - picture[other]).sum() == pytest.approx(min(each), rel=1e-9)
        weight = np.exp(-min(each) / (2 * of.variance) - evidence.reshape(10, 10)[a])
        assert traces.weight[0][a] == pytest.approx(weight, rel=1e-9)


def test_equal_patches_share_what_counts():
    images = np.full((3, 8, 8, 1), 200, np.uint8)
    of = Noisy(np.full((1, 8, 8), 0.1), 0.9, 0.19)
    question = Question(Patches(3), 5)
    with hands(1) as workers:
        found = question.answer(of, Views(images), workers)
        traces = question.trace(of, Views(images), found.evidence, workers)
    np.testing.assert_allclose(traces.there.sum((1, 2)), found.scores, rtol=1e-9)
    inside = traces.there[0, 1:7, 1:7]
    np.testing.assert_allclose(inside, inside[0, 0])


def test_equal_patches_share_what_counts_where_lists_were_full():
    """Flat pictures of more patches than a list holds: either map sums to the score."""
    images = np.full((2, 40, 40, 1), 200, np.uint8)
    images[1, 10:14, 20:24] = 30
    of, question = (
        Noisy(images[0].transpose(2, 0, 1) / 255.0 + 0.1 * RANDOM.normal(size=(1, 40, 40)), 0.9, 0.19),
        Question(Patches(3), 5),
    )
    with hands(1) as workers:
        found = question.answer(of, Views(images), workers)
        traces = question.trace(of, Views(images), found.evidence, workers)
    np.testing.assert_allclose(traces.here.sum((1, 2)), found.scores, rtol=1e-6)
    np.testing.assert_allclose(traces.there.sum((1, 2)), found.scores, rtol=1e-6)


@pytest.mark.parametrize("variance", [1e-4, 1e-3])
def test_float32_is_right_where_there_is_hardly_any_noise(variance):
    """Evidence is then thousands of nats, which float32 would round to hundredths."""
    of = noisy(variance)
    question = Question(Patches(9), 6)
    exact = answer(question, of).scores
    found = answer(question, of._replace(x_t=of.x_t.astype(np.float32))).scores
    large = exact > 1e-6 * exact.max()
    np.testing.assert_allclose(found[large], exact[large], rtol=1e-4)
