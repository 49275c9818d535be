"""The hook engine gives the rows of torch.func in one pass, for all kinds of layers called any number of
times."""

import pytest
import torch
from torch import nn

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement, simple
from headwater.diffusion.sample import sample
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError, NonFiniteError
from headwater.gradients import hooks, vmap
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of

DRAWS = Draws(3, "stratified", 2)


def rows(engine, model, examples, name="simple", draws=DRAWS, **options):
    return torch.cat(list(engine.gradients(model, examples, measurement(name), draws, **options)))


def relative(actual, expected):
    return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["simple", "square", "linf", "elbo"])
def test_rows_are_those_of_torch_func(tiny, pictures, dtype, bound, name):
    model, examples = tiny(dtype, classes=3), pictures(3, classes=3)
    assert relative(rows(hooks, model, examples, name), rows(vmap, model, examples, name)) < bound


@pytest.mark.parametrize(
    ("prediction", "changes"),
    [
        ("v_prediction", {"resnet_time_scale_shift": "scale_shift"}),
        ("sample", {"attn_norm_num_groups": 4}),
        ("epsilon", {}),
    ],
)
def test_rows_of_other_kinds_of_model_are_those_of_torch_func(tiny, pictures, prediction, changes):
    model, examples = tiny(prediction=prediction, **changes), pictures(2)
    assert relative(rows(hooks, model, examples), rows(vmap, model, examples)) < 1e-10


def test_rows_along_a_path_are_those_of_torch_func(tiny, pictures):
    model = tiny()
    samples = sample(model, range(2), 0, sampler="ddpm", steps=4, keep_path=True)
    queries = pictures(2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps)
    assert (
        relative(rows(hooks, model, queries, "trajectory"), rows(vmap, model, queries, "trajectory")) < 1e-10
    )


@pytest.mark.parametrize(
    "pattern", ["conv_out.bias", "*.attentions.*", "*norm*", "class_embedding.weight|time_embedding.*"]
)
def test_a_pattern_picks_the_columns_of_the_matching_parameters(tiny, pictures, pattern):
    model, examples = tiny(classes=3), pictures(2, classes=3)
    assert (
        relative(rows(hooks, model, examples, pattern=pattern), rows(vmap, model, examples, pattern=pattern))
        < 1e-10
    )


def test_batch_size_changes_nothing_beyond_rounding(tiny, pictures):
    model, examples = tiny(), pictures(5)
    all_rows = rows(hooks, model, examples)
    assert [len(block) for block in hooks.gradients(model, examples, simple, DRAWS, batch=2)] == [2, 2, 1]
    assert relative(rows(hooks, model, examples, batch=2), all_rows) < 1e-10


def test_the_model_is_left_as_it_was(tiny, pictures):
    model = tiny(dropout=0.5)
    weights = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    first = rows(hooks, model, pictures(1))
    assert torch.equal(first, rows(hooks, model, pictures(1))) and not first.requires_grad
    assert all(torch.equal(weight, weights[name]) for name, weight in model.module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    assert not any(module._forward_hooks for module in model.module.modules())


def test_layers_come_as_the_backward_pass_reaches_them(tiny, pictures):
    model = tiny()
    inputs, names = drawn(model, pictures(2), slice(None), simple, DRAWS), []
    hooks.stream(model, simple, inputs, layers_of(model), lambda gradient: names.append(gradient.layer.name))
    assert names[0] == "conv_out" and len(names) == len(set(names)) == len(layers_of(model))
    assert names.index("conv_norm_out") < names.index("mid_block.resnets.0.conv1") < names.index("conv_in")


def test_both_sides_have_a_row_for_every_draw_of_every_example(tiny, pictures):
    model = tiny()
    inputs, shapes = drawn(model, pictures(2), slice(None), simple, DRAWS), {}

    def visit(gradient):
        ((a, g),) = gradient.sides
        shapes[gradient.layer.name] = (a.shape, g.shape)

    hooks.stream(
        model, simple, inputs, layers_of(model, "conv_in.*|*.to_q.*|time_embedding.linear_1.*"), visit
    )
    assert shapes["conv_in"] == ((12, 1, 8, 8), (12, 8, 8, 8))
    assert {name: (a[0], g[0]) for name, (a, g) in shapes.items()} == dict.fromkeys(shapes, (12, 12))


def second_moments(model, examples):
    """Σ ã ãᵀ and Σ g gᵀ of every layer over rows and positions: another consumer of the stream, like
    curvature."""
    batch, moments = drawn(model, examples, slice(None), simple, DRAWS), {}

    def visit(gradient):
        ((a, g),) = gradient.sides
        inputs, outputs = gradient.layer.inputs(a), gradient.layer.outputs(g)
        moments[gradient.layer.name] = [
            side.flatten(0, 1).mT @ side.flatten(0, 1) for side in (inputs, outputs)
        ]

    hooks.stream(model, simple, batch, [layer for layer in layers_of(model) if layer.matrix], visit)
    return moments


def test_second_moments_of_both_sides_add_up_over_examples(tiny, pictures):
    model, examples = tiny(classes=3), pictures(3, classes=3)
    together, parts = (
        second_moments(model, examples),
        [second_moments(model, examples.take([i])) for i in range(3)],
    )
    for name, sides in together.items():
        o, i = next(layer for layer in layers_of(model) if layer.name == name).matrix
        for side, moments, size in zip((0, 1), sides, (i, o), strict=True):
            assert moments.shape == (size, size)
            torch.testing.assert_close(
                moments.double(), sum(part[name][side].double() for part in parts), rtol=1e-9, atol=1e-9
            )


class Net(nn.Module):
    """Two linear layers over the last axis of a picture, one of them called `times` times; `leave` keeps one
    unused."""

    def __init__(self, times=1, leave=False, tied=False, bare=False):
        super().__init__()
        self.first, self.second, self.other = (nn.Linear(8, 8, dtype=torch.float64) for _ in range(3))
        self.times, self.leave, self.bare = times, leave, bare
        if tied:
            self.other.weight = self.first.weight

    def forward(self, x, t):
        x = torch.tanh(self.first(x) + t[:, None, None, None] / 1000)
        for _ in range(self.times):
            x = torch.tanh(self.second(x))
        if self.bare:
            return nn.functional.linear(x, self.other.weight, self.other.bias)
        return x if self.leave else self.other(x)


def net(**options):
    torch.random.manual_seed(0)
    return Denoiser(Net(**options), linear(), (1, 8, 8), "")


@pytest.mark.parametrize(
    "options", [{"times": 3}, {"leave": True}, {"times": 0}], ids=["called thrice", "unused", "never called"]
)
def test_every_call_of_a_layer_counts(pictures, options):
    model, examples = net(**options), pictures(3)
    assert relative(rows(hooks, model, examples), rows(vmap, model, examples)) < 1e-10


@pytest.mark.parametrize(
    "options", [{"tied": True}, {"bare": True}], ids=["shared by two layers", "used outside of its layer"]
)
def test_a_parameter_the_layers_do_not_show_is_refused_by_name(pictures, options):
    name = "other.weight" if "bare" in options else "first.weight"
    with pytest.raises(ModelError, match=f"gradients of .*{name}"):
        rows(hooks, net(**options), pictures(1))


class Mixing(nn.Module):
    """A layer that sees two pictures as one row."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8, dtype=torch.float64)

    def forward(self, x, t):
        return self.first(x.repeat(2, 1, 1, 1))[: len(x)]


def test_a_layer_that_mixes_examples_is_refused_by_name(pictures):
    model = Denoiser(Mixing(), linear(), (1, 8, 8), "")
    with pytest.raises(ModelError, match="layer first sees 2 rows for 1 pictures"):
        rows(hooks, model, pictures(1))


def test_a_gradient_that_is_not_finite_is_named_with_example_and_timestep(tiny, pictures):
    model = tiny()
    forward = model.module.forward
    model.module.forward = lambda x, t, **rest: type(out := forward(x, t, **rest))(
        out.sample / (t != 333)[:, None, None, None]
    )
    with pytest.raises(NonFiniteError, match=r"image a at timestep 333\b"):
        list(hooks.gradients(model, pictures(2, ids=("a", "b")), simple, Draws((0, 333))))
