"""Every kind of layer: the gradient read off its two sides is autograd's, and the product of the sides."""

import pytest
import torch
from torch import nn

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError
from headwater.gradients.layers import KINDS, layers_of

B, D = 3, 2  # examples, draws of each


def conv(*args, **kwargs):
    return nn.Conv2d(*args, **kwargs), (B * D, args[0], 7, 6)


CASES = {
    "linear": (nn.Linear(5, 4), (B * D, 5)),
    "linear at positions": (nn.Linear(5, 4), (B * D, 3, 2, 5)),
    "linear without bias": (nn.Linear(5, 4, bias=False), (B * D, 3, 5)),
    "convolution": conv(3, 4, 3, padding=1),
    "one by one": conv(3, 4, 1, bias=False),
    "stride": conv(3, 4, 3, stride=(2, 3), padding=(0, 1)),
    "dilation": conv(3, 4, (3, 2), dilation=2, padding=2),
    "same": conv(3, 4, 3, padding="same", dilation=2),
    "valid": conv(3, 4, 3, padding="valid"),
    "circular": conv(3, 4, 3, padding=1, padding_mode="circular"),
    "reflected": conv(3, 4, 3, padding=(2, 1), padding_mode="reflect"),
    "groups": conv(4, 6, 3, groups=2, padding=1),
    "depthwise": conv(4, 8, 3, groups=4, stride=2),
    "group norm": (nn.GroupNorm(2, 6), (B * D, 6, 4, 3)),
    "group norm of vectors": (nn.GroupNorm(2, 6), (B * D, 6)),
    "layer norm": (nn.LayerNorm(5), (B * D, 3, 5)),
    "layer norm over two axes": (nn.LayerNorm((3, 5)), (B * D, 2, 3, 5)),
    "layer norm without bias": (nn.LayerNorm(5, bias=False), (B * D, 5)),
    "rms norm": (nn.RMSNorm(5), (B * D, 4, 5)),
    "embedding": (nn.Embedding(7, 4), (B * D,)),
    "embedding of several words": (nn.Embedding(7, 4), (B * D, 5)),
}


@pytest.fixture(params=CASES)
def case(request):
    """A layer in float64 with random parameters, an input, and a gradient of its output."""
    module, shape = CASES[request.param]
    random = torch.Generator().manual_seed(0)
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    words = isinstance(module, nn.Embedding)
    a = (
        torch.randint(0, 7, shape, generator=random)
        if words
        else torch.randn(shape, generator=random, dtype=torch.float64)
    )
    output = module(a)
    return module, a, torch.randn(output.shape, generator=random, dtype=torch.float64)


def layer_of(module, parts):
    kind = next(layer for base, layer in KINDS.items() if isinstance(module, base))
    return kind("it", module, dict.fromkeys(parts, 0))


def by_autograd(module, a, g, parts):
    """Each example's gradient, one backward pass an example."""
    rows = []
    for a_i, g_i in zip(a.chunk(B), g.chunk(B), strict=True):
        gradients = torch.autograd.grad((module(a_i) * g_i).sum(), [getattr(module, part) for part in parts])
        rows.append([gradient.flatten() for gradient in gradients])
    return {part: torch.stack([row[i] for row in rows]) for i, part in enumerate(parts)}


def test_the_gradient_is_autograds(case):
    module, a, g = case
    parts = [name for name, _ in module.named_parameters()]
    expected = by_autograd(module, a, g, parts)
    for chosen in (parts, parts[:1], parts[-1:]):
        gradients = dict(layer_of(module, chosen).gradient(a, g, B))
        assert list(gradients) == chosen
        for part in chosen:
            torch.testing.assert_close(gradients[part], expected[part], rtol=1e-11, atol=1e-11)


def test_the_two_sides_multiply_to_the_gradient(case):
    module, a, g = case
    parts = [name for name, _ in module.named_parameters()]
    layer = layer_of(module, parts)
    if layer.matrix is None:
        assert isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm) or module.groups > 1
        return
    expected = by_autograd(module, a, g, parts)
    weight = torch.stack([layer.oriented(row.view_as(module.weight)) for row in expected["weight"]])
    matrices = torch.cat([weight, expected["bias"][..., None]], 2) if "bias" in parts else weight
    products = layer.outputs(g).mT @ layer.inputs(a).to(g.dtype)
    assert products.shape[1:] == layer.matrix
    torch.testing.assert_close(products.view(B, D, *layer.matrix).sum(1), matrices, rtol=1e-11, atol=1e-11)
    short = torch.randn(3, layer.matrix[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        layer.through(a, short), layer.inputs(a).to(g.dtype) @ short.T, rtol=1e-11, atol=1e-11
    )


class Net(nn.Module):
    """A model of the given parts, whose output is its input."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x, t):
        return x


def denoiser(**parts):
    return Denoiser(Net(**parts), linear(), (1, 8, 8), "")


def test_places_are_the_flat_coordinates_of_the_models_parameters():
    model = denoiser(a=nn.Linear(2, 3), norm=nn.GroupNorm(1, 4), b=nn.Conv2d(1, 2, 3, bias=False))
    assert [(layer.name, dict(layer.places), layer.size) for layer in layers_of(model)] == [
        ("a", {"weight": 0, "bias": 6}, 9),
        ("norm", {"weight": 9, "bias": 13}, 8),
        ("b", {"weight": 17}, 18),
    ]
    assert [(layer.name, dict(layer.places)) for layer in layers_of(model, "*.bias")] == [
        ("a", {"bias": 0}),
        ("norm", {"bias": 3}),
    ]


def test_frozen_layers_are_left_out():
    model = denoiser(a=nn.Linear(2, 3), b=nn.Linear(3, 1))
    model.module.a.requires_grad_(False)
    assert [layer.name for layer in layers_of(model)] == ["b"]


def test_parameters_of_other_layers_are_refused_by_name():
    with pytest.raises(ModelError, match=r"odd\.weight.*name pattern") as error:
        layers_of(denoiser(fine=nn.Linear(2, 2), odd=nn.Conv1d(1, 1, 3)))
    assert "--set parameters=PATTERN" in error.value.hint
    assert layers_of(denoiser(fine=nn.Linear(2, 2), odd=nn.Conv1d(1, 1, 3)), "fine.*")


def test_gradient_checkpointing_is_refused_by_name():
    model = denoiser(block=Net(inner=nn.Linear(2, 2)))
    model.module.block.gradient_checkpointing = True
    with pytest.raises(ModelError, match="'block' uses gradient checkpointing"):
        layers_of(model)
