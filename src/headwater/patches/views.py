"""The values in which images are compared: 8-bit pixels, or an auto-encoder's latents, mirror images
included."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from headwater.examples import Examples


@dataclass(frozen=True, eq=False)
class Views:
    """`values`: pixels `[n, h, w, c]` of 8 bits, or latents `[n, c, h, w]`. `mirrored`: the latents of the
    mirror images, which are not the mirrored latents; pixels are simply mirrored."""

    values: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n z y x"]
    mirrored: Float32[np.ndarray, "n z y x"] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def pixels(self) -> bool:
        """Whether the values are pixels."""
        return self.values.dtype == np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        one, two, three = self.values.shape[1:]
        return (three, one, two) if self.pixels else (one, two, three)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """A content hash of each image: equal images share their random draws."""
        if self.pixels:
            return Examples(self.values).hashes
        return tuple(
            hashlib.blake2b(b"latents" + latents.tobytes(), digest_size=12).hexdigest()
            for latents in self.values
        )

    @property
    def fingerprint(self) -> str:
        """A hash of all images, in order."""
        return hashlib.blake2b(" ".join(self.hashes).encode(), digest_size=16).hexdigest()

    def part(
        self, rows: slice = slice(None), dtype: np.dtype | type = np.float32, *, mirrored: bool = False
    ) -> Float[np.ndarray, "b z y x"]:
        """The images at `rows`, or their mirror images, in model units; in a dtype that has the pixels
        exactly."""
        if self.pixels:
            dtype = np.dtype(dtype)
            pixels = self.values[rows].transpose(0, 3, 1, 2).astype(dtype) / dtype.type(127.5) - 1
            return pixels[..., ::-1] if mirrored else pixels
        latents = self.mirrored if mirrored else self.values
        assert latents is not None, "latents of mirror images were not computed"
        return latents[rows].astype(dtype)

    def take(self, rows: Int64[np.ndarray, " b"] | Sequence[int]) -> "Views":
        """The images at `rows`, in that order."""
        index = np.asarray(rows, np.int64)
        return Views(self.values[index], None if self.mirrored is None else self.mirrored[index])
