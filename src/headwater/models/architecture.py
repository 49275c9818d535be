"""What a kind of network has to say for itself when its folder is opened. One kind a file; `loading` knows them by name."""

from abc import ABC, abstractmethod
from typing import Any

from headwater.diffusion.denoiser import Family, TextEncoder
from headwater.errors import ModelError
from headwater.models.folders import Pipeline


class Kind(Family, ABC):
    """A Family of networks, and how one is found in a pipeline. `part` is the pipeline's name for it; `any_size`: its pictures may
    have another size than its config names."""

    part = "unet"
    any_size = False

    @abstractmethod
    def shape(self, config: Any) -> tuple[int, int, int]:
        """(channels, height, width) of what the network is shown."""

    def classes(self, config: Any) -> int | None:
        """The number of labels of a class-conditional network."""
        return None

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder | None:
        """The encoder of its prompts, if it takes any."""
        return None


def sides(config: Any) -> tuple[int, int]:
    """Height and width from `sample_size`, one number or two."""
    size = config["sample_size"]
    if size is None:
        raise ModelError("The model's config.json names no sample_size. Add the side of its pictures there.")
    return (size, size) if isinstance(size, int) else (size[0], size[1])
