"""Nothing waits for a card: the inner loops run on a device that has no numbers, where whatever reads one is
counted."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headwater.diffusion.draws import Draws, Journey
from headwater.diffusion.measure import simple
from headwater.diffusion.sample import sample
from headwater.diffusion.schedule import linear
from headwater.gradients import hooks
from headwater.gradients.features import FeatureRows
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Dense, Identity, Sparse, TwoSided
from headwater.models.train import Recipe, _module, _step
from headwater.models.unet import Network

ATEN = torch.ops.aten
NOTHING = {torch.bool: True}  # every check of numbers that are not there is passed


class Transfers(TorchDispatchMode):
    """Counts copies and single numbers from the device `meta` to the host, which there have the value 0, or
    True; and tables that come to the device from the host."""

    def __init__(self):
        super().__init__()
        self.down = self.up = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_card = any(isinstance(a, torch.Tensor) and a.is_meta for a in args)
        if func is ATEN._local_scalar_dense.default and on_card:
            self.down += 1
            return NOTHING.get(args[0].dtype, 0)
        device = kwargs.get("device")
        if func is ATEN._to_copy.default and on_card and device is not None and device.type == "cpu":
            self.down += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        self.up += func is ATEN._to_copy.default and not on_card and str(device) == "meta"
        return func(*args, **kwargs)


@pytest.fixture
def card(tiny, smallest):
    """A labelled model on the device without numbers."""
    model = tiny(torch.float32, classes=3, **smallest)
    torch.nn.Module.to(model.module, torch.device("meta"))
    return replace(model, memory=1)  # a block takes many passes


PROJECTORS = [Dense(64), Sparse(500), Sparse(500, nonzeros=3), Identity(), TwoSided(500)]
SPEC = GradientSpec("simple", Draws(1, noises=2))
SPECS = [
    GradientSpec("elbo", Draws(2, "antithetic")),
    GradientSpec("square", Draws(1, noises=2), normalize=True),
    GradientSpec("simple", Journey()),
    GradientSpec("trajectory", Draws(1)),
]


@pytest.fixture(scope="module")
def sampled(tiny, pictures):
    """Four pictures with the path by which they were sampled."""
    samples = sample(tiny(torch.float32), range(4), 0, sampler="ddpm", steps=3, keep_path=True)
    path = {"trajectory": samples.path.float().numpy(), "trajectory_timesteps": samples.timesteps}
    return pictures(4, classes=3, **path)


def counted(work) -> Transfers:
    with Transfers() as transfers:
        work()
    return transfers


@pytest.mark.parametrize(
    ("spec", "projector"),
    [*((SPEC, projector) for projector in PROJECTORS), *((spec, Sparse(500)) for spec in SPECS)],
    ids=str,
)
def test_a_block_of_features_is_copied_once_and_nothing_else_is_read(card, sampled, spec, projector):
    def blocks(count):
        rows = FeatureRows(card, sampled.take(range(2 * count)), spec, projector)
        return counted(lambda: list(rows.blocks(slice(None), block=2)))

    assert blocks(2).down - blocks(1).down == 1


def test_exact_gradients_are_checked_once_a_batch(card, pictures):
    def batches(count):
        examples = pictures(2 * count, classes=3)
        return counted(lambda: list(hooks.gradients(card, examples, simple, Draws(2), batch=2)))

    assert batches(2).down - batches(1).down == 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_step_of_training_reads_nothing(smallest, pictures, prediction):
    """And brings its rows, timesteps, noise and coins to the card, but no table of the schedule."""
    network = Network(smallest, linear(prediction=prediction))
    recipe = Recipe(batch=4, dropout=0.2, flips=True)
    module = _module(network, recipe, 0, "meta")
    optimizer = torch.optim.AdamW(module.parameters(), foreach=True)
    material = network.material(pictures(6), "meta", flips=True)

    def step(number):
        rows = torch.tensor([3, 0, 5, 1])
        return counted(lambda: _step(network, module, optimizer, material, rows, recipe, (0, number)))

    assert step(0).down == 0
    assert (step(1).down, step(2).up) == (0, 4)
