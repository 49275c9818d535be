"""Charts and numbers: every mark lies at its value, and text can be read."""

import re
from pathlib import Path

import numpy as np
import pytest

from headwater.pages import charts
from headwater.pages.gallery import Gallery
from headwater.pages.template import prose
from headwater.words import number


@pytest.mark.parametrize(
    ("largest", "value", "text"),
    [
        (1.0, 0.5, "+0.50"),
        (123.4, -5, "−5"),
        (4e-7, -1e-7, "−1.00"),
        (0.0123, 0.0123, "+0.0123"),
        (0.0, 0.0, "+0.00"),
        (5e8, 5e8, "+5.00"),
    ],
)
def test_scores_are_written_in_three_figures_of_the_largest(largest, value, text):
    assert charts.scale_of(np.array([largest], np.float32), signed=True)(value) == text


def test_a_unit_is_a_power_of_ten():
    assert charts.scale_of(np.array([4e-7], np.float32), signed=True).unit == "10⁻⁷"


def test_a_number_that_rounds_to_nothing_has_no_sign():
    assert number(-0.001) == "0.00"


def test_prose_shows_code_and_subscripts_and_nothing_else():
    assert (
        prose("x_t, Σ_{i∈A}, `a_b`, no_name <b>")
        == "x<sub>t</sub>, Σ<sub>i∈A</sub>, <code>a_b</code>, no_name &lt;b&gt;"
    )


def test_streams_share_the_river_by_weight():
    a, b = (Gallery({}).add(np.full((8, 8, 1), level, np.uint8)) for level in (0, 255))
    wide, narrow = re.findall(r'stroke-width="([^"]*)"', charts.streams([(a, 3.0), (b, 1.0)], a))
    assert float(wide) == 3 * float(narrow)


def test_every_score_is_in_the_histogram_and_a_mark_lies_at_its_score():
    values = np.array([-1, 0, 0, 3], np.float32)
    drawn = charts.histogram(values, values[3:], values[:1], charts.scale_of(values, signed=True))
    assert (
        'cx="100.0%"' in drawn
        and '<svg class="over" x="0.0%"' in drawn
        and 'class="zero" x1="25.0%"' in drawn
    )
    assert len(re.findall(r"M\d+ ", drawn)) == 3  # bins that hold something


def test_scores_that_are_all_alike_still_have_a_histogram():
    values = np.full(9, 1e20, np.float32)
    assert "<svg" in charts.histogram(values, values[:1], values[:0], charts.scale_of(values, signed=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme):
    css = (Path(charts.__file__).parent / "templates" / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    colours = dict(re.findall(r"--(\w+): (#\w+);", light if scheme == "light" else dark))
    for name in ("ink", "quiet", "pro", "opp", "link"):
        for ground in ("paper", "raised"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["bars"], colours["paper"]) >= 3


def contrast(a, b):
    """Contrast of two colours as WCAG 2 defines it."""

    def luminance(colour):
        levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
