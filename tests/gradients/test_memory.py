"""The number of draws that go through at once fills the budget, and the rows do not depend on it."""

from dataclasses import replace

import pytest
import torch

from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import MOST, bytes_of_a_draw, draws_that_fit
from headwater.gradients.projected import Unprojected, projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Identity, Sparse


def needed(model, inputs, sketch):
    return bytes_of_a_draw(model, simple, inputs, sketch.layers, sketch.keep)


@pytest.fixture
def model(tiny):
    return tiny(torch.float32)


def test_the_bytes_grow_with_the_draws(model, pictures):
    sketch = Unprojected(layers_of(model), Identity())
    one, four = (
        needed(model, drawn(model, pictures(n), slice(None), simple, Draws(1)), sketch) for n in (1, 4)
    )
    assert 3.5 * one < four < 4.5 * one


def test_a_draw_takes_at_least_the_bytes_of_the_layers_inputs(model, pictures):
    inputs = drawn(model, pictures(1), slice(None), simple, Draws(1))
    held = 0

    def keep(layer, a):
        nonlocal held
        held += a.nbytes
        return a.clone()

    assert bytes_of_a_draw(model, simple, inputs, layers_of(model), keep) > held > 0


def test_a_budget_is_filled_and_not_overrun(model, pictures):
    one, sketch = (
        drawn(model, pictures(1), slice(None), simple, Draws(1)),
        Unprojected(layers_of(model), Identity()),
    )
    size = needed(model, one, sketch)
    for memory, count in ((1, 1), (20 * size, 13), (10**15, MOST)):
        assert draws_that_fit(replace(model, memory=memory), simple, one, sketch.layers, sketch.keep) == count


def test_the_budget_changes_nothing_beyond_rounding(tiny, pictures):
    model, examples = tiny(), pictures(3)
    spec = GradientSpec("simple", Draws(4))
    small, large = (
        torch.cat(list(projected(replace(model, memory=memory), examples, spec, Sparse(100))))
        for memory in (1, 2**30)
    )
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-12)
