"""How many draws go through at once: as many as the budget says, and the numbers do not depend on it."""

from dataclasses import replace

import pytest
import torch

from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import MOST, bytes_of_a_draw, draws_that_fit
from headwater.gradients.projected import Exact, projected
from headwater.linalg.project import Identity, Sparse


def needed(model, given, sketch):
    return bytes_of_a_draw(model, simple, given, sketch.layers, sketch.keep)


@pytest.fixture
def model(tiny):
    return tiny(torch.float32)


def test_what_is_measured_grows_with_the_draws(model, pictures):
    sketch = Exact(layers_of(model), Identity())
    one, four = (needed(model, drawn(model, pictures(n), slice(None), simple, Draws(1)), sketch) for n in (1, 4))
    assert 3.5 * one < four < 4.5 * one


def test_it_is_at_least_what_the_layers_inputs_take(model, pictures):
    given = drawn(model, pictures(1), slice(None), simple, Draws(1))
    kept = 0

    def keep(layer, a):
        nonlocal kept
        kept += a.nbytes
        return a.clone()

    assert bytes_of_a_draw(model, simple, given, layers_of(model), keep) > kept > 0


def test_a_budget_is_filled_and_not_overrun(model, pictures):
    one, sketch = drawn(model, pictures(1), slice(None), simple, Draws(1)), Exact(layers_of(model), Identity())
    each = needed(model, one, sketch)
    for memory, count in ((1, 1), (20 * each, 13), (10**15, MOST)):
        found = draws_that_fit(replace(model, memory=memory), simple, one, sketch.layers, sketch.keep)
        assert found == count


def test_the_budget_changes_nothing_beyond_rounding(tiny, pictures):
    model, examples = tiny(), pictures(3)
    small, large = (
        torch.cat(list(projected(replace(model, memory=memory), examples, simple, Draws(4), Sparse(100)))) for memory in (1, 2**30)
    )
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-12)
