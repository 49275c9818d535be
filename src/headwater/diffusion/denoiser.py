"""The model, as everything above sees it: parameters, a prediction, a schedule, a fingerprint."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from headwater.diffusion.schedule import Schedule
from headwater.errors import OptionError

Parameters = Mapping[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Denoiser:
    """One model at one checkpoint, in eval mode.

    `module(x_t, t[, class_labels])` returns the prediction, or an object that carries it as `.sample`.
    `classes` is the number of labels of a class-conditional model, None for an unconditional one. `memory` is how many bytes the
    activations of one pass may take: it decides how many pictures go through at once, and nothing else. `checkpoints` are the
    same model on its way through training, the earliest first, where a method wants them.
    """

    module: nn.Module
    schedule: Schedule
    shape: tuple[int, int, int]
    fingerprint: str
    classes: int | None = None
    memory: int = 2**30
    checkpoints: tuple["Denoiser", ...] = ()

    def __post_init__(self) -> None:
        self.module.eval()

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def parameters(self, pattern: str = "*") -> dict[str, Tensor]:
        """The trainable parameters whose name matches the shell pattern (several: separated by `|`)."""
        chosen = {
            name: parameter.detach()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and any(fnmatch.fnmatchcase(name, part) for part in pattern.split("|"))
        }
        if not chosen:
            some = ", ".join(name for name, _ in list(self.module.named_parameters())[:3])
            raise OptionError(f"No trainable parameter of the model matches '{pattern}'. Parameters are named like {some}.")
        return chosen

    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Int64[Tensor, " b"],
        labels: Int64[Tensor, " b"] | None = None,
        parameters: Parameters | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The network's output; with `parameters`, those replace the model's own (for torch.func)."""
        condition = {} if labels is None else {"class_labels": labels}
        out = functional_call(self.module, dict(parameters or {}), (x_t, t), condition)
        return getattr(out, "sample", out)


def evenly(checkpoints: Sequence[T], count: int) -> list[T]:
    """`count` of the checkpoints, evenly spaced, the last among them; all where there are fewer."""
    n = len(checkpoints)
    return [checkpoints[(i + 1) * n // count - 1] for i in range(count)] if count < n else list(checkpoints)
