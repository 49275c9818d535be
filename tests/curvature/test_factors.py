"""K-FAC's factors against sums written out from torch.func's own derivatives, and as sums: parts, files,
failures."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import kfac
from headwater.curvature.parameters import factored
from headwater.curvature.sums import load_sums, merged
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, Draws
from headwater.diffusion.measure import pseudo, simple
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError, NonFiniteError, OptionError, StorageError
from headwater.gradients.inputs import Drawn

DRAWS = Draws(2, "antithetic", 2)
KINDS = {
    "model": Fisher(draws=DRAWS),
    "loss": Fisher(draws=DRAWS, kind="loss"),
    "average": Fisher(draws=DRAWS, kind="loss", average=True),
}


class Odd(nn.Module):
    """Convolutions with stride, dilation, circular padding, a layer over positions called twice, and no bias
    somewhere."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=(1, 0), dilation=2, dtype=torch.float64)
        self.around = nn.Conv2d(
            3, 2, (3, 1), padding="same", padding_mode="circular", bias=False, dtype=torch.float64
        )
        self.norm = nn.GroupNorm(1, 2, dtype=torch.float64)
        self.twice = nn.Linear(2, 2, dtype=torch.float64)
        self.last = nn.Linear(24, 64, dtype=torch.float64)

    def forward(self, x, t):
        x = self.norm(self.around(torch.tanh(self.first(x))))
        x = x.flatten(2).mT
        x = torch.tanh(self.twice(torch.tanh(self.twice(x)))) * (1 + t[:, None, None] / 1000)
        return self.last(F.pad(x.flatten(1), (0, 24 - x[0].numel()))).view(-1, 1, 8, 8)


@pytest.fixture
def odd():
    torch.random.manual_seed(0)
    return Denoiser(Odd(), linear(), (1, 8, 8), "odd")


def patches(module, a):
    """ã at every position [s, i], from the definition: the factor of each weight, by autograd."""
    if isinstance(module, nn.Linear):
        return a.reshape(-1, a.shape[-1])
    probe = nn.Conv2d(
        module.in_channels, 1, module.kernel_size, module.stride, module.padding, module.dilation, bias=False,
        padding_mode=module.padding_mode, dtype=a.dtype,
    )  # fmt: skip
    return torch.autograd.functional.jacobian(
        lambda w: torch.func.functional_call(probe, {"weight": w}, (a,)).flatten(), probe.weight.detach()
    ).flatten(1)


def sides_of(model, fisher, inputs):
    """ã [s, i] and g [s, o] of one gradient, for each layer at every position of every call, from a plain
    backward pass."""
    sides, hooks = {}, []

    def watch(name, module, a, output):
        output.retain_grad()
        sides.setdefault(name, []).append((module, a.detach(), output))

    for name, module in model.module.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            hooks.append(
                module.register_forward_hook(
                    lambda m, args, output, name=name: watch(name, m, args[0], output)
                )
            )
    total, root = 0.0, 1.0 if fisher.kind == "model" else 8.0  # √d of the empirical Fisher
    measure = pseudo if fisher.kind == "model" else simple
    for d in range(fisher.rows):
        draw = inputs.one(0, d).draw
        output = model.predict(draw.x_t[0], draw.t[0])[None]
        total = total + root * measure(output, draw, model.schedule).sum()
    (total / fisher.rows).backward()
    for hook in hooks:
        hook.remove()
    return {
        name: (
            torch.cat([patches(module, a) for module, a, _ in calls]),
            torch.cat(
                [
                    (o.grad[0].flatten(1).mT if o.ndim == 4 else o.grad.reshape(-1, o.shape[-1]))
                    for _, _, o in calls
                ]
            ),
        )
        for name, calls in sides.items()
    }


def by_hand(model, examples, fisher, variant, joint):
    """A and B of every layer, one gradient at a time."""
    sums, inputs = {}, fisher.drawn(model, examples, slice(None))
    n = len(inputs.draw.t)
    for u in range(n):
        row = Drawn(Draw(*(part[u : u + 1] for part in inputs.draw)), {})
        for name, (a, g) in sides_of(model, fisher, row).items():
            if joint and model.module.get_submodule(name).bias is not None:
                a = F.pad(a, (0, 1), value=1.0)
            if variant == "reduce":
                sums[f"{name}/size"] = sums.get(f"{name}/size", 0) + g.square().sum() / n
                a, g = a.mean(0, keepdim=True), g.sum(0, keepdim=True)
            for side, product in (("A", a.mT @ a / len(a)), ("B", g.mT @ g)):
                sums[f"{name}/{side}"] = sums.get(f"{name}/{side}", 0) + product / n
    model.module.zero_grad()
    return sums


@pytest.mark.parametrize("joint", [False, True], ids=["separate", "joint"])
@pytest.mark.parametrize("variant", ["expand", "reduce"])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_those_of_one_gradient_at_a_time(odd, pictures, kind, variant, joint):
    examples = pictures(3)
    sums = factors(odd, examples, KINDS[kind], variant=variant, joint=joint)
    expected = by_hand(odd, examples, KINDS[kind], variant, joint)
    assert set(sums.tensors) == set(expected)
    for name, factor in expected.items():
        torch.testing.assert_close(sums.mean(name), factor, rtol=1e-9, atol=1e-12)


def close(sums, expected):
    assert sums.counts == dict(expected.counts)
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(sums.tensors[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", ["expand", "reduce"])
@pytest.mark.parametrize("kind", KINDS)
def test_how_many_rows_go_through_at_once_changes_nothing_and_parts_add_up(odd, pictures, kind, variant):
    examples, fisher = pictures(5), KINDS[kind]
    together = factors(odd, examples, fisher, variant=variant)
    for rows in (1, 3, 7):
        close(factors(odd, examples, fisher, variant=variant, rows=rows), together)
    parts = [factors(odd, examples.take(rows), fisher, variant=variant) for rows in ([0, 1], [2], [3, 4])]
    total = merged(parts)
    close(total, together)
    assert [part["gradients"] for part in total.parts] == [part.parts[0]["gradients"] for part in parts]


def test_parts_of_different_sums_are_not_added(odd, pictures):
    first, second = pictures(2), pictures(2, seed=1)
    part = factors(odd, first, KINDS["model"])
    with pytest.raises(OptionError, match="given twice"):
        merged([part, factors(odd, second, KINDS["model"]), part])
    with pytest.raises(OptionError, match="differ in fisher: model and loss"):
        merged([part, factors(odd, second, KINDS["loss"])])
    with pytest.raises(OptionError, match="differ in variant: expand and reduce"):
        merged([part, factors(odd, second, KINDS["model"], variant="reduce")])


def test_a_file_holds_the_same_sums_and_is_refused_for_another_model(odd, pictures, tmp_path):
    saved = factors(odd, pictures(2), KINDS["model"])
    saved.save(tmp_path / "factors.safetensors")
    loaded = load_sums(tmp_path / "factors.safetensors", odd)
    close(loaded, saved)
    assert loaded.about == saved.about and list(loaded.parts) == [
        {**saved.parts[0], "draws": loaded.parts[0]["draws"]}
    ]
    assert loaded.parts[0]["draws"] == {"timesteps": 2, "strategy": "antithetic", "noises": 2, "seed": 0}
    assert merged([loaded, factors(odd, pictures(1, seed=3), KINDS["model"])]).counts["last/B"] == 12
    with pytest.raises(ModelError, match="made with the model odd; this model is another"):
        load_sums(tmp_path / "factors.safetensors", Denoiser(odd.module, odd.schedule, odd.shape, "another"))
    with pytest.raises(ModelError, match="made with the model odd"):
        kfac(Denoiser(odd.module, odd.schedule, odd.shape, "another"), loaded)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "foreign"])
def test_a_damaged_file_is_one_paragraph_of_error(odd, pictures, tmp_path, damage):
    path = tmp_path / "factors.safetensors"
    factors(odd, pictures(1), KINDS["model"]).save(path)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 64
    path.write_bytes(
        {"cut": bytes(raw[:-100]), "flipped": bytes(raw), "foreign": b"PK\x03\x04" * 9}.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    with pytest.raises(StorageError, match=r"factors\.safetensors") as error:
        load_sums(path, odd)
    assert "\n" not in str(error.value)


def test_norms_are_left_out_and_named_and_the_pattern_gives_the_vectors(odd, tiny):
    layers = factored(odd)
    assert layers.left_out == ("norm.weight", "norm.bias")
    assert [(place.name, place.height, place.columns) for place in layers.places(False)][:3] == [
        ("first.weight", 3, ((0, 9),)),
        ("first.bias", 3, ((27, 1),)),
        ("around.weight", 2, ((30, 9),)),
    ]
    assert [place.columns for place in layers.places(True)][:2] == [((0, 9), (27, 1)), ((30, 9),)]
    sizes = [place.height * sum(width for _, width in place.columns) for place in layers.places(True)]
    assert sum(sizes) == sum(parameter.numel() for parameter in odd.parameters(layers.pattern).values())
    assert "class_embedding.weight" in factored(tiny(classes=3)).left_out


def test_a_model_without_a_layer_to_factor_is_refused(odd):
    with pytest.raises(ModelError, match=r"No Linear or Conv2d layer.*'norm\*'.*norm\.weight, norm\.bias"):
        factored(odd, "norm*")


def test_a_grouped_convolution_is_refused_by_name(odd):
    odd.module.first = nn.Conv2d(1, 2, 3, groups=1, dtype=torch.float64)
    odd.module.around = nn.Conv2d(2, 2, 3, groups=2, dtype=torch.float64)
    with pytest.raises(ModelError, match="'around' has 2 groups"):
        factored(odd)
    assert len(factored(odd, "first.*|last.*").layers) == 2


def test_a_gradient_that_is_not_finite_is_named_with_its_example(odd, pictures):
    forward = odd.module.forward
    odd.module.forward = lambda x, t: forward(x, t) / (t != 333)[:, None, None, None]
    fisher = Fisher(draws=Draws((0, 333)))
    with pytest.raises(NonFiniteError, match=r"image a at timestep 333\b"):
        factors(odd, pictures(2, ids=("a", "b")), fisher)


@pytest.mark.parametrize("fields", [{"kind": "hessian"}, {"average": True}])
def test_impossible_fishers_are_refused(fields):
    with pytest.raises(OptionError, match=r"hessian|average is true"):
        Fisher(draws=DRAWS, **fields)


def test_an_unknown_variant_is_refused(odd, pictures):
    with pytest.raises(OptionError, match=r"no K-FAC variant 'expend'\. Did you mean 'expand'"):
        factors(odd, pictures(1), KINDS["model"], variant="expend")
