"""Outcomes: means over draws, whatever goes through the model together."""

import numpy as np
import pytest
import torch

from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.gradients import forward as module
from headwater.retraining.outcomes import BINS, binned, outcomes


def slow(model, queries, name, draws):
    """One draw of one query at a time."""
    like = next(model.module.parameters())
    draw = draws.of(queries, slice(None), model.schedule, like)
    losses = np.zeros(draw.t.shape)
    for i in range(losses.shape[0]):
        for d in range(losses.shape[1]):
            one = type(draw)(draw.x[i : i + 1], *(part[i : i + 1, d : d + 1] for part in draw[1:]))
            condition = (
                {} if model.classes is None else {"class_labels": torch.as_tensor(queries.labels[i : i + 1])}
            )
            output = model.predict(one.x_t[0], one.t[0], condition)[None]
            losses[i, d] = measurement(name)(output, one, model.schedule).item()
    return losses, draw.t.numpy()


@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("draws", [Draws(20, "stratified", 2), Draws(7, "random"), Draws((3, 999))], ids=str)
def test_outcomes_are_means_over_draws(tiny, pictures, rows, draws):
    model, queries = tiny(classes=3), pictures(3, classes=3)
    measured = outcomes(model, queries, ("elbo", "square"), draws, rows=rows)
    for name in ("simple", "elbo", "square"):
        expected, times = slow(model, queries, name, draws)
        assert measured[name].dtype == np.float32
        np.testing.assert_allclose(measured[name], expected.mean(axis=1), rtol=1e-6)
    expected, times = slow(model, queries, "simple", draws)
    for query in range(3):
        for b in range(BINS):
            losses = expected[query][times[query] * BINS // 1000 == b]
            if len(losses):
                assert measured["per-timestep"][query, b] == pytest.approx(losses.mean(), rel=2e-3)
            else:
                assert np.isnan(measured["per-timestep"][query, b])


def test_a_bin_holds_the_timesteps_that_fall_into_it():
    values, times = np.arange(6.0)[None], np.array([[0, 49, 50, 999, 950, 949]])
    means = binned(values, times, 1000)[0]
    assert (means[0], means[1], means[18], means[19]) == (0.5, 2.0, 5.0, 3.5)
    assert np.isnan(means[2:18]).all()


def test_large_pictures_go_through_in_smaller_numbers(tiny):
    assert module.rows_at_once(tiny()) == module.ROWS
    wide = tiny(sample_size=256)
    assert module.rows_at_once(wide) == module.PIXELS // 256**2
