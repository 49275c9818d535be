"""Seconds of methods without gradients: what four timings say of any size, and a method of known time."""

import time

import pytest

from headwater.cost.sampled import bilinear, sampled_seconds
from headwater.methods.nda import NDA
from headwater.methods.random import Random


def test_four_corners_give_every_value_of_what_is_linear_in_both():
    def seconds(n, q):
        return 0.5 + 0.01 * n + 0.2 * q + 0.003 * n * q

    corners = tuple(seconds(n, q) for n, q in ((16, 1), (32, 1), (16, 2), (32, 2)))
    assert bilinear(corners, (1000 - 16) / 16, (50 - 1) / 1) == pytest.approx(seconds(1000, 50))
    assert bilinear((1.0, 0.9, 1.0, 0.8), 60, 60) == 1.0  # noise of the clock is no negative slope


class Sleeper(Random):
    """A method that takes a millisecond a pair."""

    def score(self, index, queries, store=None):
        time.sleep(1e-3 * len(index) * len(queries))
        yield from super().score(index, queries, store)


def test_the_seconds_of_pairs_are_extrapolated_to_all_images(pictures):
    took = sampled_seconds(Sleeper(), None, pictures(900, side=2), pictures(40, seed=1, side=2), 2**30)
    assert took == pytest.approx(1e-3 * 900 * 40, rel=0.3)


def test_nda_takes_time(pictures):
    method = NDA(timesteps=(300,), patches=3, low_patches=2)
    assert sampled_seconds(method, None, pictures(80), pictures(5, seed=1), 2**30) > 0
