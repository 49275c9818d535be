"""The networks that the kit measures: the D-TRAK paper's, and smaller ones a bank of many models can
afford."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.linalg.damping import Damping
from headwater.models import unet
from headwater.scores import dense

CIFAR: dict[str, dict[str, Any]] = {
    "paper": {},
    "wide-64": {"block_out_channels": (64, 128, 128, 128)},
    "wide-48": {"block_out_channels": (48, 96, 96, 96), "norm_num_groups": 24},
    "short-64": {
        "block_out_channels": (64, 128, 128),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "tiny": {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
}


def configuration(name: str) -> dict[str, Any]:
    """The keyword arguments of the network called `name`."""
    return unet.configuration("cifar", **CIFAR[name])


def network(name: str) -> unet.Network:
    """What there is to train."""
    return unet.Network(configuration(name))


def denoiser(name: str, device: str = "cpu", memory: int = 2**30) -> Denoiser:
    """A network with the initial weights of seed 0; its activations may take `memory` bytes."""
    model = unet.new(configuration(name), 0)
    nn.Module.to(model.module, device)
    return replace(model, memory=memory)


def pictures(count: int, seed: int = 0) -> Examples:
    """Smooth random pictures of 32×32: an 8×8 mosaic, enlarged, with a little noise."""
    random = seeds.generator(seed, "gpu kit", "pictures")
    coarse = random.integers(0, 224, size=(count, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    noise = random.integers(0, 32, size=(count, 32, 32, 3))
    return Examples((coarse + noise).astype(np.uint8), labels=np.arange(count) % 2)


def scored(
    method: Any, index: Any, queries: Examples, store: FeatureStore, dampings: Sequence[float] | None = None
) -> np.ndarray:
    """All scores, `[λ, q, n]` where there are several relative dampings."""
    if dampings is None:
        return dense(method.score(index, queries, store))
    return dense(method.scores_at(index, queries, [Damping(value) for value in dampings], store))
