"""The pictures of a page, each embedded once as a PNG and shown by reference."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """An embedded picture: the name it is referred to by, its size in pixels, and its PNG in base64."""

    name: str
    width: int
    height: int
    png: str

    @property
    def box(self) -> str:
        """The picture's SVG view box."""
        return f"0 0 {self.width} {self.height}"


@dataclass(frozen=True, eq=False)
class Gallery:
    """Every distinct picture of a page, by content; `train` holds the training pictures at hand, by row."""

    train: Mapping[int, UInt8[np.ndarray, "h w c"]]
    embedded: dict[bytes, Picture] = field(default_factory=dict)

    def add(self, image: UInt8[np.ndarray, "h w c"]) -> Picture:
        """The embedded picture of an image; equal images share one."""
        key = str(image.shape).encode() + image.tobytes()
        if key not in self.embedded:
            height, width = image.shape[:2]
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            self.embedded[key] = Picture(f"p{len(self.embedded)}", width, height, png(picture))
        return self.embedded[key]

    def row(self, row: int) -> Picture | None:
        """The picture of a training row, if the run folder keeps it."""
        return self.add(self.train[row]) if row in self.train else None


def png(picture: Image.Image) -> str:
    """A picture as a PNG file in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
