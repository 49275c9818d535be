"""The interface of one kind of network, read from its folder; `loading` lists the kinds by name."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from headwater.diffusion.denoiser import Family, TextEncoder
from headwater.errors import ModelError
from headwater.models.folders import Pipeline


class Kind(Family, ABC):
    """A Family of networks as a pipeline's component. `part` is its name there; `any_size`: it also takes
    pictures of another size than its config's."""

    part = "unet"
    any_size = False

    @abstractmethod
    def shape(self, config: Any) -> tuple[int, int, int]:
        """(channels, height, width) of the network's input."""

    def classes(self, config: Any) -> int | None:
        """The number of labels of a class-conditional network."""
        return None

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder | None:
        """The encoder of its prompts; None if it takes none."""
        return None


def check_inputs(config: Any, taken: Mapping[str, tuple[str | None, ...]]) -> None:
    """Raise a ModelError for a network that takes inputs which its Kind does not give, by the entries of its
    config and their values that are `taken`."""
    further = [
        f"{name} is {config[name]}" for name in taken if config.get(name, taken[name][0]) not in taken[name]
    ]
    if further:
        raise ModelError(
            "The network takes other inputs than its noised picture, the timestep, and a prompt or label: "
            f"{', '.join(further)}. Expected a network such as DDPM's, or Stable Diffusion 1 or 2."
        )


def input_channels(config: Any) -> int:
    """The channels of the noised picture; a ModelError if the network is shown or predicts further ones."""
    shown = config["in_channels"]
    predicted = shown if config["out_channels"] is None else config["out_channels"]
    if predicted > shown:
        raise ModelError(
            f"The model predicts {predicted} channels for pictures of {shown}; learned variances are not "
            "supported."
        )
    if predicted < shown:
        raise ModelError(
            f"The model is shown {shown} channels and predicts {predicted}: it takes more than its noised "
            "picture, as for inpainting, editing or super-resolution, and that is not supported."
        )
    return shown


def height_and_width(config: Any) -> tuple[int, int]:
    """Height and width from the config's `sample_size`, one number or two."""
    size = config["sample_size"]
    if size is None:
        raise ModelError("The model's config.json names no sample_size. Add the side of its pictures there.")
    return (size, size) if isinstance(size, int) else (size[0], size[1])
