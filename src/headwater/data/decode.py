"""Pictures decoded to 8-bit grey or RGB: alpha on white, upright, resized; shared by all sources of files."""

from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from headwater.errors import DataError, UserError

# A list, so that any other format is refused: Pillow hands PostScript to an interpreter, for instance.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "JPEG2000", "PPM")
GREY = ("1", "L", "LA")
STRIP = (
    16  # times the shorter side: what of a longer strip is resized, which as a whole could fill the memory
)


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of files in these formats."""
    registered = Image.registered_extensions().items()
    return tuple(end for kind in FORMATS for end, name in registered if name == kind)


def opened(file: Path | BytesIO, name: str) -> Image.Image:
    """The (first) picture in a file, converted by `eight_bit`; errors call it `name`."""
    try:
        with Image.open(file, formats=formats()) as image:
            return eight_bit(image, name)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(
            f"Could not read {name} as a picture ({first_line(error)}). Expected a whole "
            f"{', '.join(formats())} file: replace or remove it."
        ) from error


def eight_bit(image: Image.Image, name: str) -> Image.Image:
    """The picture in mode L (grey) or RGB, rotated by its EXIF tag, transparent parts on white."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        return _eight_of_sixteen(image)
    if image.mode in ("I", "F"):
        raise DataError(
            f"{name} has 32-bit pixels (mode {image.mode}); expected 8 or 16 bits a channel. Convert or "
            "remove it."
        )
    target = "L" if image.mode in GREY else "RGB"
    if not image.has_transparency_data:
        return image.convert(target)
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert(target)


def fitted(image: Image.Image, size: int | None) -> Image.Image:
    """The central square of the picture, its shorter side scaled to `size` (bicubic); None: unchanged."""
    if size is None or image.size == (size, size):
        return image
    short = min(image.size)
    strip = _middle(image, *(min(side, STRIP * short) for side in image.size))
    width, height = (side * size // short for side in strip.size)
    return _middle(strip.resize((width, height), Image.Resampling.BICUBIC), size, size)


def stacked(pictures: Iterable[tuple[str, Image.Image]], n: int) -> UInt8[np.ndarray, "n h w c"]:
    """`n` named pictures of one size as one array: one channel while all are grey, else three.

    The array is allocated at the first picture (again if colour follows grey), so no picture is held twice.
    """
    first, size, out = "", (0, 0), np.empty((0, 0, 0, 1), np.uint8)
    for row, (name, image) in enumerate(pictures):
        if row == 0:
            first, size = name, image.size
            out = _room(n, image)
        if image.size != size:
            raise DataError(
                f"Images differ in size: {first} is {size[0]}×{size[1]}, {name} is "
                f"{image.width}×{image.height} (width × height); expected one size. Resize them, e.g. "
                f"resize={min(*size, *image.size)}.",
                hint=f"Use --resize {min(*size, *image.size)}.",
            )
        if image.mode == "RGB" and out.shape[3] == 1:
            grey, out = out, _room(n, image)
            out[:row] = grey[:row]
        out[row] = np.asarray(image)[..., None] if image.mode == "L" else np.asarray(image)
    return out


def resized(images: UInt8[np.ndarray, "n h w c"], size: int) -> UInt8[np.ndarray, "n s s c"]:
    """Images in memory, each `fitted` to `size`."""
    if images.shape[3] not in (1, 3):
        raise DataError(
            f"Images have {images.shape[3]} channels; resizing expects 1 or 3. Resize them before saving."
        )
    pictures = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    return stacked(((f"image {i}", fitted(picture, size)) for i, picture in enumerate(pictures)), len(images))


def first_line(error: Exception) -> str:
    """The first line of another library's error, to be quoted within a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    x, y = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((x, y, x + width, y + height))


def _eight_of_sixteen(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8; the level that its file declares transparent is white."""
    levels = np.asarray(image)
    grey = np.rint(levels / 257).astype(np.uint8)
    return Image.fromarray(np.where(levels == image.info.get("transparency", -1), 255, grey).astype(np.uint8))


def _room(n: int, image: Image.Image) -> UInt8[np.ndarray, "n h w c"]:
    shape = (n, image.height, image.width, len(image.getbands()))
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{n} images of {image.width}×{image.height} need {np.prod(shape, dtype=float) / 2**30:.0f} GiB "
            "of memory, more than there is. Make them smaller with resize=N.",
            hint="Use --resize N.",
        ) from error
