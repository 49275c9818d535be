"""The model, as everything above sees it: parameters, a prediction, a schedule, a fingerprint."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from headwater.diffusion.schedule import Schedule
from headwater.errors import DataError, OptionError
from headwater.examples import Examples

Parameters = Mapping[str, Tensor]
Condition = Mapping[str, Tensor]  # what conditions a network, under the names of its own arguments; nothing where nothing does
T = TypeVar("T")


class Posterior(NamedTuple):
    """What an auto-encoder makes of pictures: the mode of the latents, and their standard deviation (0 where it has none)."""

    mode: Float[Tensor, "b c h w"]
    deviation: Float[Tensor, "b c h w"]


@runtime_checkable
class AutoEncoder(Protocol):
    """Pictures of `shape`, in model units, to the latents that a network is shown, and back."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> Posterior: ...

    def decode(self, latents: Float[Tensor, "b z y x"]) -> Float[Tensor, "b c h w"]: ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to what conditions a network, under the names of its own arguments."""

    @property
    def fingerprint(self) -> str: ...

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]: ...


class Family:
    """How networks of one kind are called, and what of their output is the prediction. This one: most of diffusers' UNets."""

    def inputs(self, x_t: Tensor, time: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments."""
        return (x_t, time), dict(condition)

    def output(self, made: Any, x_t: Tensor) -> Tensor:
        """The prediction, shaped as x_t."""
        return getattr(made, "sample", made)

    def prediction(
        self, network: Callable[..., Any], dtype: torch.dtype, x_t: Tensor, time: Tensor, condition: Condition
    ) -> Tensor:
        """What the network of that dtype makes of (x_t, time, condition), in the dtype of x_t."""
        told = {name: each.to(dtype) if each.is_floating_point() else each for name, each in condition.items()}
        inputs, named = self.inputs(x_t.to(dtype), time, told)
        return self.output(network(*inputs, **named), x_t).to(x_t.dtype)


DIFFUSERS = Family()


@dataclass(frozen=True, eq=False)
class Denoiser:
    """One model at one checkpoint, in eval mode.

    `shape` is what the network is shown: a picture, or with an auto-encoder (`latent`) the latents of one. `classes` is the number
    of labels of a class-conditional model, `text` the encoder of one that takes prompts. `memory` is how many bytes the
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
    family: Family = DIFFUSERS
    latent: AutoEncoder | None = None
    text: TextEncoder | None = None

    def __post_init__(self) -> None:
        self.module.eval()

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def like(self) -> Tensor:
        """An empty tensor of the kind that pictures, noise and measurements are: the weights', but never narrower than float32."""
        return torch.empty(0, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))

    @property
    def pictures(self) -> tuple[int, int, int]:
        """(channels, height, width) of the pictures that the model makes."""
        return self.shape if self.latent is None else self.latent.shape

    def parameters(self, pattern: str = "*") -> dict[str, Tensor]:
        """The trainable parameters whose name matches the shell pattern (several: separated by `|`)."""
        chosen = {
            name: parameter.detach()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and any(fnmatch.fnmatchcase(name, part) for part in pattern.split("|"))
        }
        if not chosen:
            some = ", ".join([name for name, parameter in self.module.named_parameters() if parameter.requires_grad][:3])
            raise OptionError(f"No trainable parameter of the model matches '{pattern}'. Parameters are named like {some}.")
        return chosen

    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Int64[Tensor, " b"],
        condition: Condition | None = None,
        parameters: Parameters | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The network's output, without guidance; with `parameters`, those replace the model's own (for torch.func)."""

        def network(*inputs: Any, **named: Any) -> Any:
            return functional_call(self.module, dict(parameters or {}), inputs, named)

        return self.family.prediction(network, self.dtype, x_t, self.schedule.time(t), condition or {})

    def clipped(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A finished picture as samplers clip it: pixels to [−1, 1], latents not at all."""
        return x.clamp(-1, 1) if self.latent is None else x


def evenly(checkpoints: Sequence[T], count: int) -> list[T]:
    """`count` of the checkpoints, evenly spaced, the last among them; all where there are fewer."""
    n = len(checkpoints)
    return [checkpoints[(i + 1) * n // count - 1] for i in range(count)] if count < n else list(checkpoints)


def needed(model: Denoiser | None) -> Denoiser:
    """The model, of a method that cannot do without one."""
    if model is None:
        raise OptionError("This method needs a model. Name one with --model FOLDER.")
    return model


def check_fits(model: Denoiser, examples: Examples) -> None:
    """Raise a DataError where these images cannot be shown to this model."""
    if examples.shape != model.pictures:
        (c, h, w), (mc, mh, mw) = examples.shape, model.pictures
        raise DataError(
            f"The images are {h}×{w} with {c} channel{'s' * (c > 1)}; the model takes {mh}×{mw} with {mc}. "
            f"Convert them, or for a folder of images use --resize."
        )
    if model.text is not None and examples.prompts is None:
        raise DataError(
            "The model is conditioned on prompts and the images have none. Give an .npz with `prompts`, a folder with captions in "
            "its metadata.jsonl, or a template with --caption."
        )
    if model.classes is not None:
        if examples.labels is None:
            raise DataError(
                f"The model is class-conditional ({model.classes} classes) and the images have no labels. "
                "Give an .npz with `labels`, or a folder with one subfolder per class."
            )
        if examples.labels.min() < 0 or examples.labels.max() >= model.classes:
            raise DataError(
                f"Labels run from {examples.labels.min()} to {examples.labels.max()}; "
                f"the model has classes 0 … {model.classes - 1}."
            )
