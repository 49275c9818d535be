import io

import numpy as np
import pytest
from PIL import Image

from headwater.data.decode import eight_bit, fitted, opened, resized, stacked
from headwater.errors import DataError


def saved(image, **options):
    """The picture as it comes back from a file."""
    file = io.BytesIO()
    image.save(file, **({"format": "PNG"} | options))
    file.seek(0)
    return opened(file, "it")


@pytest.mark.parametrize(
    ("mode", "ink", "expected"), [("RGBA", (200, 0, 0, 0), (255, 255, 255)), ("LA", (10, 0), 255)]
)
def test_transparent_parts_become_white(mode, ink, expected):
    assert saved(Image.new(mode, (2, 2), ink)).getpixel((0, 0)) == expected


def test_half_transparent_red_is_pink():
    assert saved(Image.new("RGBA", (2, 2), (255, 0, 0, 51))).getpixel((1, 1)) == (255, 204, 204)


@pytest.mark.parametrize(
    ("mode", "ink", "expected"), [("L", 7, 255), ("RGB", (1, 2, 3), (255, 255, 255)), ("1", 0, 255)]
)
def test_a_colour_declared_transparent_becomes_white(mode, ink, expected):
    image = saved(Image.new(mode, (2, 2), ink), transparency=ink)
    assert (image.mode, image.getpixel((0, 0))) == ("L" if isinstance(ink, int) else "RGB", expected)


def test_palette_colours_are_looked_up():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert saved(image).getpixel((0, 0)) == (10, 20, 30)


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert saved(image, format="GIF", transparency=1).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_become_eight_by_rounding():
    levels = np.array([[0, 128, 129, 32767, 65535]], np.uint16)
    assert np.asarray(saved(Image.fromarray(levels))).tolist() == [[0, 0, 1, 127, 255]]


def test_a_level_of_sixteen_bits_declared_transparent_becomes_white(tmp_path):
    levels = np.array([[0, 1000, 1001]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=1000)
    assert np.asarray(opened(tmp_path / "a.png", "a.png")).tolist() == [[0, 255, 4]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bit_pixels_are_refused(mode):
    with pytest.raises(DataError, match=rf"row 3 has 32-bit pixels \(mode {mode}\); expected 8 or 16"):
        eight_bit(Image.new(mode, (2, 2)), "row 3")


def test_the_exif_tag_turns_the_picture_upright():
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn to the left
    turned = saved(image, exif=exif)
    assert turned.size == (2, 3) and turned.getpixel((1, 0)) == (255, 0, 0)


def test_cmyk_becomes_rgb():
    assert saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), format="JPEG").getpixel((0, 0)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("blue", "red")]
    assert saved(frames[0], format="GIF", save_all=True, append_images=frames[1:]).getpixel((0, 0)) == (
        0,
        0,
        255,
    )


def test_fitting_to_its_own_size_changes_nothing(put):
    image = put("a.png", size=(6, 6))
    assert fitted(image, 6) is image and fitted(image, None) is image


def test_fitting_scales_the_shorter_side_and_keeps_the_middle():
    stripes = np.zeros((4, 12), np.uint8)
    stripes[:, 4:8] = 255
    assert np.asarray(fitted(Image.fromarray(stripes), 4)).tolist() == [[255] * 4] * 4


@pytest.mark.parametrize("size", [(5, 9), (9, 5), (2, 3), (1, 7)])
def test_fitting_gives_a_square_of_that_size(size):
    assert fitted(Image.new("L", size, 9), 4).size == (4, 4)


def test_fitting_a_long_strip_takes_no_more_memory_than_its_middle():
    """Whole, a strip of 60,000 pixels resized to a height of 512 would be 30 million pixels wide."""
    strip = np.zeros((1, 60_000), np.uint8)
    strip[:, 29_980:30_020] = 255
    assert (np.asarray(fitted(Image.fromarray(strip), 512)) == 255).all()
    assert (np.asarray(fitted(Image.fromarray(strip.T), 512)) == 255).all()


def test_a_strip_that_is_not_long_is_resized_as_a_whole():
    strip = Image.fromarray(np.indices((4, 62)).sum(0).astype(np.uint8) * 3)
    whole = strip.resize((124, 8), Image.Resampling.BICUBIC).crop((58, 0, 66, 8))
    assert np.array_equal(fitted(strip, 8), whole)


def test_shrinking_averages_a_fine_pattern():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = np.asarray(fitted(Image.fromarray(board.astype(np.uint8)), 8))
    assert np.abs(small[1:-1, 1:-1].astype(int) - 128).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_an_array_equals_fitting_each_image(pictures, channels):
    images = pictures(3, channels=channels).images
    expected = [
        np.asarray(fitted(Image.fromarray(image.squeeze()), 5)).reshape(5, 5, channels) for image in images
    ]
    assert np.array_equal(resized(images, 5), expected)


def test_two_channels_cannot_be_resized(pictures):
    with pytest.raises(DataError, match="2 channels; resizing expects 1 or 3"):
        resized(pictures(1, channels=2).images, 5)


def test_more_images_than_memory_holds_is_reported():
    with pytest.raises(DataError, match=r"of 32×32 need \d+ GiB .* resize=N"):
        stacked([("a", Image.new("L", (32, 32)))], 2**50)
