from dataclasses import replace

import numpy as np
import pytest

from headwater.data import open_examples
from headwater.data.template import captioned
from headwater.disk.npz import write_examples
from headwater.errors import DataError, DataWarning, OptionError


@pytest.fixture
def two(pictures):
    """Two images with ids, groups and labels."""
    return replace(pictures(2), ids=("x", "y"), groups=("ukiyo_e", "baroque"), labels=np.array([3, 0]))


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a {group} painting", ("a ukiyo_e painting", "a baroque painting")),
        ("{label}", ("3", "0")),
        ("{id}: {group}, {group}", ("x: ukiyo_e, ukiyo_e", "y: baroque, baroque")),
        ("a painting", ("a painting", "a painting")),
        ("{{{label}}}", ("{3}", "{0}")),
        ("", ("", "")),
    ],
)
def test_prompts_are_the_template_with_each_images_columns(two, template, prompts):
    captions = captioned(two, template)
    assert captions.prompts == prompts
    assert replace(captions, prompts=None).keys == two.keys and captions.groups == two.groups


def test_braces_in_a_group_are_left_as_they_are(two):
    assert captioned(replace(two, groups=("{label}", "b")), "{group}").prompts == ("{label}", "b")


def test_prompts_of_its_own_win(two):
    prompted = replace(two, prompts=("mine", ""))
    notes = []
    assert captioned(prompted, "a {group} painting", "queries", notes.append).prompts == ("mine", "")
    assert notes == [
        "The queries have prompts of their own, such as 'mine': the caption changes none of them."
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "a {grup}",
            r"In the caption 'a \{grup\}': There is no name 'grup'\. Did you mean 'group'\? Known: group, "
            r"id, label\.",
        ),
        ("a {}", "There is no name ''.* Known: group, id, label"),
        ("{0}", "no name '0'"),
        ("{group.__class__}", "no name 'group.__class__'"),
        ("{label[0]}", "no name"),
        (
            "a {group",
            r"The caption 'a \{group' cannot be read \(.*\)\. Expected text with \{group\} \{label\} \{id\} "
            r"in it",
        ),
        ("a } b", "cannot be read"),
        ("{label:03d}", r"formats \{label\}; expected the bare name, one of \{group\} \{label\} \{id\}"),
        ("{label!r}", "formats"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused_whatever_the_prompts(two, template, message):
    for examples in (two, replace(two, prompts=("mine", "mine"))):
        with pytest.raises(OptionError, match=message):
            captioned(examples, template)


def test_a_column_that_is_not_there_is_reported_with_those_that_are(pictures):
    with pytest.raises(
        OptionError, match=r"asks for \{group\}, but the images have no groups; they have \{label\} \{id\}\."
    ):
        captioned(pictures(2, classes=2), "a {group}")


@pytest.mark.parametrize(
    ("template", "columns"), [("{label}", {"labels": np.array([3, -1])}), ("{group}", {"groups": ("a", "")})]
)
def test_an_image_without_a_group_or_label_is_reported_by_its_id(two, template, columns):
    with pytest.raises(
        DataError, match=r"which 1 of the 2 images lack, the first with id 'y'; expected one each"
    ):
        captioned(replace(two, **columns), template)


def test_open_examples_takes_a_template(tmp_path, put, two):
    put("cats/cat/1.png")
    assert open_examples(tmp_path / "cats", caption="a {group}").prompts == ("a cat",)
    write_examples(tmp_path / "prompted.npz", replace(two, prompts=("mine", "mine")))
    with pytest.warns(DataWarning, match="prompts of their own"):
        opened = open_examples(tmp_path / "prompted.npz", caption="a {group}", resize=4)
    assert opened.prompts == ("mine", "mine")


def test_a_template_is_read_before_its_source_is_looked_for():
    with pytest.raises(OptionError, match="no name 'colour'"):
        open_examples("nowhere.npz", caption="a {colour} car")
