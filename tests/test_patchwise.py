"""The posterior over patches: however it is computed, one answer; and the bound on what is left out."""

from dataclasses import replace

import numpy as np
import pytest

from headwater.patchwise import NEGLIGIBLE, Noisy, Patches, Question, hands

RANDOM = np.random.Generator(np.random.Philox(3))
IMAGES = RANDOM.integers(0, 256, (150, 10, 10, 2), dtype=np.uint8)


def noisy(variance: float = 0.3, dtype: type = np.float64) -> Noisy:
    signal = np.sqrt(1 - variance)
    x = IMAGES[7].transpose(2, 0, 1) / 127.5 - 1
    return Noisy((signal * x + np.sqrt(variance) * RANDOM.normal(size=x.shape)).astype(dtype), float(signal), variance)


def answer(question: Question, of: Noisy, threads: int = 1, images: np.ndarray = IMAGES):
    with hands(threads) as workers:
        return question.answer(of, images, workers)


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
