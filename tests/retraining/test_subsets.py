"""Subsets: exact where they say so, different from each other, and the beginning of every larger family."""

import numpy as np
import pytest

from headwater import seeds
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.retraining.subsets import SCHEMES, draw_subsets


@pytest.fixture
def labelled(pictures):
    """31 pictures of three classes (7, 9 and 15) by five artists."""
    labels = np.repeat([0, 1, 2], [7, 9, 15])
    artists = tuple(f"artist-{i % 5}" for i in range(31))
    return Examples(pictures(31).images, labels=labels, groups=artists)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_larger_family_begins_with_the_smaller_and_no_set_occurs_twice(labelled, scheme):
    small, large = draw_subsets(scheme, 4, labelled), draw_subsets(scheme, 9, labelled)
    assert np.array_equal(large[:4], small) and len({row.tobytes() for row in large}) == 9
    learning = draw_subsets(scheme, 1, labelled, family="learning", apart=large)
    assert not (learning == large).all(axis=1).any()
    assert not large.all(axis=1).any() and large.any(axis=1).all()


@pytest.mark.parametrize("part", [0.5, 0.3])
def test_halves_are_exact_and_stratified_ones_in_every_class(labelled, part):
    for scheme in ("half", "stratified"):
        assert (draw_subsets(scheme, 20, labelled, part).sum(axis=1) == round(part * 31)).all()
    rows = draw_subsets("stratified", 20, labelled, part)
    for label, size in ((0, 7), (1, 9), (2, 15)):
        sizes = rows[:, labelled.labels == label].sum(axis=1)
        assert (np.abs(sizes - part * size) < 1).all()


def test_every_image_is_kept_about_half_the_time(labelled):
    shares = {"half": 16 / 31, "bernoulli": 0.5, "stratified": np.repeat([4 / 7, 4 / 9, 8 / 15], [7, 9, 15])}
    for scheme, share in shares.items():
        rate = draw_subsets(scheme, 400, labelled).mean(axis=0)
        assert np.abs(rate - share).max() < 4 * 0.5 / 400**0.5  # four standard deviations


def test_bernoulli_draws_images_independently(labelled):
    sizes = draw_subsets("bernoulli", 400, labelled, 0.3).sum(axis=1)
    assert abs(sizes.mean() - 0.3 * 31) < 4 * (31 * 0.21 / 400) ** 0.5
    assert sizes.std() == pytest.approx((31 * 0.21) ** 0.5, rel=0.15)


def test_a_group_is_kept_whole_or_not_at_all(labelled):
    rows = draw_subsets("group", 8, labelled, 0.4)
    names = np.array(labelled.groups)
    shares = np.array([[row[names == name].mean() for name in np.unique(names)] for row in rows])
    assert np.isin(shares, (0.0, 1.0)).all() and (shares.sum(axis=1) == 2).all()


def test_halves_are_those_of_the_stream_of_their_row(labelled):
    expected = np.zeros(31, bool)
    expected[seeds.generator(0, "subset", 3).permutation(31)[:16]] = True  # round(15.5) = 16
    assert np.array_equal(draw_subsets("half", 4, labelled)[3], expected)


def test_more_subsets_than_there_are_is_refused(labelled):
    assert len(draw_subsets("group", 10, labelled, 0.4)) == 10  # 5 over 2
    with pytest.raises(OptionError, match="not 11 different"):
        draw_subsets("group", 11, labelled, 0.4)


def test_what_cannot_be_is_refused(labelled, pictures):
    with pytest.raises(OptionError, match="Did you mean 'stratified'"):
        draw_subsets("stratifed", 1, labelled)
    with pytest.raises(OptionError, match=r"part is 1\.0"):
        draw_subsets("half", 1, labelled, 1.0)
    for scheme in ("stratified", "group"):
        with pytest.raises(DataError, match="neither labels nor groups"):
            draw_subsets(scheme, 1, pictures(4))
