"""The number of draws that go through a model at once: from the bytes of one draw, so that no run crashes to
find its limit."""

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.measure import Measurement
from headwater.gradients.hooks import Keep, stream
from headwater.gradients.inputs import Drawn
from headwater.gradients.layers import Layer

MOST = 512  # with more draws at once a pass gets no faster, on any machine tried
WORKSPACE = 1.5  # memory of a backward pass, as a multiple of the bytes saved for it


def bytes_of_a_draw(
    model: Denoiser, measurement: Measurement, inputs: Drawn, layers: Sequence[Layer], keep: Keep
) -> int:
    """The bytes that one draw holds between its forward and its backward pass: distinct tensors other than
    parameters."""
    storages = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.module.parameters()}

    def counted(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with saved_tensors_hooks(counted, lambda tensor: tensor):
        stream(
            model,
            measurement,
            inputs,
            layers,
            lambda gradient: None,
            lambda layer, a: counted(keep(layer, a)),
        )
    return sum(storages.values())


def draws_that_fit(
    model: Denoiser, measurement: Measurement, one: Drawn, layers: Sequence[Layer], keep: Keep
) -> int:
    """The number of draws that fit `model.memory`, at least one; `one` is a single draw of a single
    example."""
    needed = WORKSPACE * bytes_of_a_draw(model, measurement, one, layers, keep)
    return int(min(MOST, max(1, model.memory // max(1.0, needed))))
