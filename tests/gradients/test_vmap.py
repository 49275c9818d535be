"""The per-example gradients, against one plain backward pass per example."""

import numpy as np
import pytest
import torch
from torch import nn

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, Draws, along_trajectory
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.diffusion.schedule import linear
from headwater.errors import NonFiniteError, OptionError
from headwater.gradients.vmap import gradients

DRAWS = Draws(2, "stratified", 2)
SCHEDULE = linear()


def rows(model, examples, name="simple", draws=DRAWS, **options):
    return torch.cat(list(gradients(model, examples, measurement(name), draws, **options)))


def by_backward(model, examples, name="simple", draws=DRAWS):
    """The same rows by torch.autograd: one example, one batch of its draws, one mean, one backward pass."""
    parameters = list(model.module.parameters())
    gradients = []
    for i in range(len(examples)):
        one = slice(i, i + 1)
        if name == "trajectory":
            draw = along_trajectory(examples, one, model.schedule, parameters[0])
        else:
            draw = draws.of(examples, one, model.schedule, parameters[0])
        draw = Draw(*(field[0] for field in draw))
        labels = None if model.classes is None else torch.full((len(draw.t),), int(examples.labels[i]))
        output = model.module(draw.x_t, draw.t, class_labels=labels).sample
        values = measurement(name)(output, draw, model.schedule)
        loss = values.sum() if name == "trajectory" else values.mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(gradients)


def relative(actual, expected):
    """The largest error of a row, in units of that row's norm."""
    return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize("name", ["simple", "square", "linf", "eta:0.3"])
def test_rows_are_those_of_a_plain_backward_pass_per_example(tiny, pictures, name):
    model, examples = tiny(classes=3), pictures(3, classes=3)
    assert relative(rows(model, examples, name), by_backward(model, examples, name)) < 1e-10


@pytest.mark.parametrize(
    ("prediction", "changes"), [("v_prediction", {"resnet_time_scale_shift": "scale_shift"}), ("sample", {})]
)
def test_rows_of_other_kinds_of_model_are_those_of_a_backward_pass(tiny, pictures, prediction, changes):
    model, examples = tiny(prediction=prediction, **changes), pictures(2)
    assert relative(rows(model, examples), by_backward(model, examples)) < 1e-10


def test_rows_along_a_path_are_those_of_a_backward_pass(tiny, pictures):
    model = tiny()
    samples = sample(model, range(2), 0, sampler="ddpm", steps=4, keep_path=True)
    queries = pictures(2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps)
    assert relative(rows(model, queries, "trajectory"), by_backward(model, queries, "trajectory")) < 1e-10


def test_in_float32_rows_agree_to_rounding(tiny, pictures):
    model, examples = tiny(torch.float32, classes=3), pictures(3, classes=3)
    actual = rows(model, examples)
    assert actual.dtype == torch.float32
    assert relative(actual, by_backward(model, examples)) < 1e-5
    assert relative(actual.double(), rows(tiny(classes=3), examples)) < 1e-4


def test_a_row_is_the_mean_over_its_draws(tiny, pictures):
    model, examples = tiny(), pictures(2)
    by_timestep = torch.stack([rows(model, examples, draws=Draws((t,))) for t in (0, 333, 999)])
    assert relative(rows(model, examples, draws=Draws((0, 333, 999))), by_timestep.mean(0)) < 1e-10


def test_batch_size_and_order_change_nothing_beyond_rounding(tiny, pictures):
    model, examples = tiny(classes=3), pictures(5, classes=3)
    at_once = rows(model, examples)
    assert relative(rows(model, examples, batch=1), at_once) < 1e-10
    assert relative(rows(model, examples, batch=2), at_once) < 1e-10
    assert relative(rows(model, examples.take([4, 1])), at_once[[4, 1]]) < 1e-10


def test_blocks_come_in_order_and_a_batch_high(tiny, pictures):
    blocks = list(
        gradients(tiny(), pictures(5), measurement("avg"), Draws(1), batch=2, pattern="conv_out.bias")
    )
    assert [len(block) for block in blocks] == [2, 2, 1]


def test_a_pattern_picks_the_columns_of_the_matching_parameters(tiny, pictures):
    model, examples = tiny(), pictures(2)
    sizes = [parameter.numel() for parameter in model.parameters().values()]
    columns = dict(zip(model.parameters(), rows(model, examples).split(sizes, 1), strict=True))
    for pattern in ("conv_out.*", "*.attentions.*", "*bias|conv_in.weight"):
        chosen = list(model.parameters(pattern))
        assert 0 < len(chosen) < len(columns)
        actual = rows(model, examples, pattern=pattern).detach()
        assert relative(actual, torch.cat([columns[name] for name in chosen], 1)) < 1e-10


@pytest.mark.parametrize("pattern", ["*", "conv_out.*"])
def test_rows_drag_no_graph_along(tiny, pictures, pattern):
    assert not rows(tiny(), pictures(1), pattern=pattern).requires_grad  # else memory grows with every batch


def test_a_pattern_that_matches_nothing_is_refused_with_names_that_exist(tiny):
    with pytest.raises(OptionError, match=r"'lora\*'.*conv_in.weight"):
        tiny().parameters("lora*")


def test_frozen_parameters_have_no_columns(tiny, pictures):
    model = tiny()
    model.module.conv_in.requires_grad_(False)
    assert "conv_in.weight" not in model.parameters() and "conv_out.weight" in model.parameters()


def test_the_model_and_the_global_generator_are_left_as_they_were(tiny, pictures):
    model = tiny(dropout=0.5)
    weights, before = {n: w.clone() for n, w in model.module.state_dict().items()}, torch.get_rng_state()
    first = rows(model, pictures(1))
    assert torch.equal(first, rows(model, pictures(1)))  # no dropout
    assert all(torch.equal(w, weights[n]) for n, w in model.module.state_dict().items())
    assert all(p.grad is None for p in model.module.parameters())
    assert torch.equal(torch.get_rng_state(), before)


class Overflowing(nn.Module):
    """A line through x whose output is not finite at one timestep."""

    def __init__(self, timestep):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.timestep = timestep

    def forward(self, x, t):
        return self.w * x / (t != self.timestep)[:, None, None, None]


def test_a_gradient_that_is_not_finite_is_named_with_example_and_timestep(pictures):
    examples = pictures(5, ids=tuple("abcde"))
    like = torch.zeros((), dtype=torch.float64)
    steps = Draws(4, "random").of(examples, slice(None), SCHEDULE, like).t
    bad = int(steps[3, 2])
    assert (steps == bad).sum() == 1  # only picture d meets it
    model = Denoiser(Overflowing(bad), SCHEDULE, (1, 8, 8), "")
    blocks = gradients(model, examples, measurement("simple"), Draws(4, "random"), batch=2)
    assert torch.isfinite(next(blocks)).all()
    with pytest.raises(NonFiniteError, match=rf"image d at timestep {bad}\b"):
        next(blocks)


def test_labels_are_needed_by_a_conditional_model_only(tiny, pictures):
    plain, labelled = pictures(2), pictures(2, classes=3)
    assert np.array_equal(plain.images, labelled.images)
    assert torch.equal(rows(tiny(), plain), rows(tiny(), labelled))
    relabelled = rows(tiny(classes=3), pictures(2, labels=1 - labelled.labels.clip(0, 1)))
    assert not torch.allclose(rows(tiny(classes=3), labelled), relabelled)
