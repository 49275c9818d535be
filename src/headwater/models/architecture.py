"""The interface of one kind of network, read from its folder; `loading` lists the kinds by name."""

from abc import ABC, abstractmethod
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


def height_and_width(config: Any) -> tuple[int, int]:
    """Height and width from the config's `sample_size`, one number or two."""
    size = config["sample_size"]
    if size is None:
        raise ModelError("The model's config.json names no sample_size. Add the side of its pictures there.")
    return (size, size) if isinstance(size, int) else (size[0], size[1])
