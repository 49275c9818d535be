"""A network's training data: pixels, or latents sampled from an auto-encoder's posterior; labels and text."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from headwater import seeds
from headwater.diffusion.denoiser import Condition
from headwater.examples import Text
from headwater.linalg.transfer import sent


@dataclass(frozen=True, eq=False)
class Material:
    """Training images as network inputs: pixels `x`, or the latents' mode `x` and standard `deviation`.
    `mirrored`: mode and deviation of the mirror images' latents; pixels are mirrored directly."""

    x: Float[Tensor, "n c h w"]
    deviation: Float[Tensor, "n c h w"] | None = None
    mirrored: tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]] | None = None
    labels: Int64[Tensor, " n"] | None = None
    text: Text | None = None

    def shown(
        self, rows: Int64[Tensor, " b"], seed: int, step: int, *, flips: bool
    ) -> Float[Tensor, "b c h w"]:
        """The inputs at a step: with `flips` each mirrored at random, latents sampled again."""
        rows = self._placed(rows)
        x, deviation = self.x[rows], None if self.deviation is None else self.deviation[rows]
        if flips:
            coins = seeds.generator(seed, "flips", step).integers(0, 2, size=len(x)).astype(bool)
            coin = sent(coins, x.device)[:, None, None, None]
            if self.mirrored is None:
                x = torch.where(coin, x.flip(-1), x)
            else:
                x = torch.where(coin, self.mirrored[0][rows], x)
                deviation = (
                    None if deviation is None else torch.where(coin, self.mirrored[1][rows], deviation)
                )
        if deviation is None:
            return x
        noise = seeds.generator(seed, "posterior", step).standard_normal(tuple(x.shape), dtype=np.float32)
        return x + deviation * sent(noise, x.device)

    def _placed(self, rows: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """The rows, drawn on the processor, where the images are."""
        return sent(rows.numpy(), self.x.device)

    def condition(self, rows: Int64[Tensor, " b"]) -> Condition:
        """The network's condition for the images at `rows`."""
        arguments: dict[str, Tensor] = {}
        if self.labels is not None:
            arguments["class_labels"] = self.labels[self._placed(rows)]
        if self.text is not None:
            which = self.text.which[rows.numpy()]
            arguments |= {name: sent(table[which], self.x.device) for name, table in self.text.tables.items()}
        return arguments


def latents(
    posterior: Float32[np.ndarray, "n 2 c h w"],
    mirrored: Float32[np.ndarray, "n 2 c h w"] | None,
    device: str,
    labels: Int64[np.ndarray, " n"] | None = None,
    text: Text | None = None,
) -> Material:
    """The material of a latent model."""
    (mode, deviation), reflected = (
        _halves(posterior, device),
        None if mirrored is None else _halves(mirrored, device),
    )
    return Material(
        mode, deviation, reflected, None if labels is None else torch.as_tensor(labels, device=device), text
    )


def _halves(posterior: Float32[np.ndarray, "n 2 c h w"], device: str) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(posterior[:, 0], device=device), torch.as_tensor(posterior[:, 1], device=device)
