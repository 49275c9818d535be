"""The model as all other rooms see it: parameters, a prediction, a schedule, a fingerprint."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from headwater.diffusion.schedule import Schedule
from headwater.errors import DataError, OptionError
from headwater.examples import Examples

Parameters = Mapping[str, Tensor]
Condition = Mapping[str, Tensor]  # a network's further arguments by name; empty for an unconditional one
T = TypeVar("T")


class Posterior(NamedTuple):
    """The latents of pictures: their mode and standard deviation (0 for a deterministic auto-encoder)."""

    mode: Float[Tensor, "b c h w"]
    deviation: Float[Tensor, "b c h w"]


@runtime_checkable
class AutoEncoder(Protocol):
    """Pictures of `shape`, in model units, to the latents that a network takes, and back."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> Posterior: ...

    def decode(self, latents: Float[Tensor, "b z y x"]) -> Float[Tensor, "b c h w"]: ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to the arguments that condition a network, by name."""

    @property
    def fingerprint(self) -> str: ...

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]: ...


class Family:
    """The calling convention of one kind of network. This one fits most of diffusers' UNets."""

    def inputs(
        self, x_t: Tensor, time: Tensor, condition: Condition
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments."""
        return (x_t, time), dict(condition)

    def output(self, result: Any, x_t: Tensor) -> Tensor:
        """The prediction, shaped as x_t."""
        return getattr(result, "sample", result)

    def prediction(
        self, network: Callable[..., Any], dtype: torch.dtype, x_t: Tensor, time: Tensor, condition: Condition
    ) -> Tensor:
        """The prediction at (x_t, time, condition) of a network of this dtype, in the dtype of x_t."""
        cast = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in condition.items()
        }
        inputs, named = self.inputs(x_t.to(dtype), time, cast)
        return self.output(network(*inputs, **named), x_t).to(x_t.dtype)


DIFFUSERS = Family()


@dataclass(frozen=True, eq=False)
class Denoiser:
    """One model at one checkpoint, in eval mode.

    `shape` is the network's input: a picture, or with an auto-encoder (`latent`) its latents. `classes` is
    the number of labels of a class-conditional model, `text` the encoder of a model that takes prompts.
    `memory`: bytes that the activations of one pass may take; it decides only how many pictures pass at once,
    and in an attribution is the store's.
    `checkpoints` are earlier states of the model in training, the earliest first.
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

    def within(self, memory: int) -> "Denoiser":
        """The model and its checkpoints with `memory` bytes for the activations of a pass."""
        if all(model.memory == memory for model in (self, *self.checkpoints)):
            return self
        checkpoints = tuple(replace(checkpoint, memory=memory) for checkpoint in self.checkpoints)
        return replace(self, memory=memory, checkpoints=checkpoints)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def like(self) -> Tensor:
        """An empty tensor with the device and dtype of pictures, noise and measurements: at least float32."""
        return torch.empty(0, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))

    @property
    def pictures(self) -> tuple[int, int, int]:
        """(channels, height, width) of the model's pictures."""
        return self.shape if self.latent is None else self.latent.shape

    def parameters(self, pattern: str = "*") -> dict[str, Tensor]:
        """The trainable parameters whose name matches a shell pattern (or several, separated by `|`)."""
        matches = {
            name: parameter.detach()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and any(fnmatch.fnmatchcase(name, part) for part in pattern.split("|"))
        }
        if not matches:
            names = ", ".join(
                [name for name, parameter in self.module.named_parameters() if parameter.requires_grad][:3]
            )
            raise OptionError(
                f"No trainable parameter of the model matches '{pattern}'. Parameters are named like {names}."
            )
        return matches

    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Int64[Tensor, " b"],
        condition: Condition | None = None,
        parameters: Parameters | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The network's output, without guidance; `parameters` replace the model's (for torch.func)."""

        def network(*inputs: Any, **named: Any) -> Any:
            return functional_call(self.module, dict(parameters or {}), inputs, named)

        return self.family.prediction(network, self.dtype, x_t, self.schedule.time(t), condition or {})

    def clipped(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A finished picture as samplers clip it: pixels to [−1, 1], latents not at all."""
        return x.clamp(-1, 1) if self.latent is None else x

    def check(self, examples: Examples) -> None:
        """Raise a DataError for images of another shape or without the model's prompts or labels."""
        if examples.shape != self.pictures:
            (c, h, w), (mc, mh, mw) = examples.shape, self.pictures
            raise DataError(
                f"The images are {h}×{w} with {c} channel{'s' * (c > 1)}; the model takes {mh}×{mw} with "
                f"{mc}. Convert or resize them.",
                hint="For a folder of images use --resize.",
            )
        if self.text is not None and examples.prompts is None:
            raise DataError(
                "The model is conditioned on prompts and the images have none. Give an .npz with `prompts`, "
                "a folder with captions in its metadata.jsonl, or a template as `caption`.",
                hint="The template is --caption.",
            )
        if self.classes is not None:
            if examples.labels is None:
                raise DataError(
                    f"The model is class-conditional ({self.classes} classes) and the images have no labels. "
                    "Give an .npz with `labels`, or a folder with one subfolder per class."
                )
            if examples.labels.min() < 0 or examples.labels.max() >= self.classes:
                raise DataError(
                    f"Labels run from {examples.labels.min()} to {examples.labels.max()}; "
                    f"the model has classes 0 … {self.classes - 1}."
                )


def evenly(checkpoints: Sequence[T], count: int) -> list[T]:
    """`count` of the checkpoints, evenly spaced, ending with the last; all of them if there are fewer."""
    n = len(checkpoints)
    return [checkpoints[(i + 1) * n // count - 1] for i in range(count)] if count < n else list(checkpoints)


def require_model(model: Denoiser | None) -> Denoiser:
    """The model; an OptionError for None."""
    if model is None:
        raise OptionError(
            "This method needs a model; expected one, not None.", hint="Name one with --model FOLDER."
        )
    return model
