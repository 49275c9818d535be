"""How many draws go through a model at once: measured on one draw, so that a budget is kept and never found by crashing."""

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.measure import Measurement
from headwater.gradients.hooks import Keep, stream
from headwater.gradients.inputs import Drawn
from headwater.gradients.layers import Layer

MOST = 512  # beyond so many draws at once a pass gets no faster, on any machine seen
WORKSPACE = 1.5  # of what is saved for the backward pass: what that pass itself needs beside it


def bytes_of_a_draw(model: Denoiser, measurement: Measurement, given: Drawn, layers: Sequence[Layer], keep: Keep) -> int:
    """What one draw leaves behind between its forward and its backward pass, in bytes: distinct tensors, parameters apart."""
    storages = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.module.parameters()}

    def seen(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with saved_tensors_hooks(seen, lambda tensor: tensor):
        stream(model, measurement, given, layers, lambda gradient: None, lambda layer, a: seen(keep(layer, a)))
    return sum(storages.values())


def draws_that_fit(model: Denoiser, measurement: Measurement, one: Drawn, layers: Sequence[Layer], keep: Keep) -> int:
    """How many draws fit `model.memory`, at least one; `one` is a single draw of a single example."""
    needed = WORKSPACE * bytes_of_a_draw(model, measurement, one, layers, keep)
    return int(min(MOST, max(1, model.memory // max(1.0, needed))))
