"""The torch form of a patch posterior, which cards compute, beside the compiled one; both here on the
processor."""

import numpy as np
import pytest
import torch

from headwater.patches import on_device
from headwater.patches.geometry import Patches
from headwater.patches.noise import Noisy
from headwater.patches.posterior import Comparison, PatchPosterior
from headwater.patches.threads import Threads
from headwater.patches.views import Views

RANDOM = np.random.Generator(np.random.Philox(17))
FORCED = torch.device("cpu", 0)  # as any device other than the plain processor it takes the torch form
PATCHES = [Patches(1), Patches(5), Patches(9), Patches(2, coarse=True), Patches(6, coarse=True)]


def images(n, height=9, width=10):
    return RANDOM.integers(0, 256, (n, height, width, 2), dtype=np.uint8)


def noisy(picture, variance, dtype=np.float32):
    signal = float(np.sqrt(1 - variance))
    x = picture.transpose(2, 0, 1) / 127.5 - 1
    return Noisy(
        (signal * x + np.sqrt(variance) * RANDOM.normal(size=x.shape)).astype(dtype), signal, variance
    )


def both(comparison, picture, train):
    with Threads(1) as threads:
        posterior = PatchPosterior(comparison, picture, Views(train), threads)
        return [of.explained() for of in (posterior._replace(device=FORCED), posterior)]


@pytest.mark.parametrize("patches", PATCHES, ids=str)
@pytest.mark.parametrize(("top", "flips"), [(1, False), (7, True), (10**4, False)])
def test_the_torch_form_has_the_scores_of_the_compiled_one(patches, top, flips):
    train = images(40)
    for variance in (0.01, 0.3, 0.95):
        ours, compiled = both(Comparison(patches, top, flips), noisy(train[3], variance), train)
        large = compiled.scores > 1e-6 * compiled.scores.max()
        np.testing.assert_allclose(ours.scores[large], compiled.scores[large], rtol=1e-4)
        np.testing.assert_allclose(ours.scores, compiled.scores, rtol=1e-4, atol=1e-6 * compiled.scores.max())
        np.testing.assert_allclose(ours.evidence, compiled.evidence, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("patches", PATCHES, ids=str)
def test_in_double_they_agree_to_rounding_and_blocks_change_nothing(patches, monkeypatch):
    train = images(20)
    comparison, picture = Comparison(patches, 5, flips=True), noisy(train[3], 0.2, np.float64)
    ours, compiled = both(comparison, picture, train)
    np.testing.assert_allclose(ours.scores, compiled.scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.leaders.value, compiled.leaders.value, rtol=1e-8, atol=1e-12)
    monkeypatch.setattr(on_device, "MOST", 7)
    again, twice = (
        both(changed, picture, train)[0] for changed in (comparison, Comparison(patches, 5, True, memory=0))
    )
    for scores in (again.scores, twice.scores):
        np.testing.assert_allclose(scores, ours.scores, rtol=1e-9, atol=1e-12)


def test_a_picture_larger_than_the_room_is_compared_with_one_image_at_a_time():
    sides = Patches(7).windows(512, 512)
    assert on_device.images_at_once(*sides, 1, 4) == 1
    assert on_device.images_at_once(*Patches(7).windows(32, 32), 2, 4) == on_device.MOST
