"""Names of training images: columns of a run, and CSV files."""

import numpy as np
import pytest

from headwater.credit.groups import column, default, from_csv
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.run import open_run


def test_columns_are_found_by_name():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    examples = Examples(images, labels=np.array([4, -1, 4]), groups=("x", "y", "x"))
    assert column(examples, "label") == ("4", "none", "4")
    assert column(examples, "group") == ("x", "y", "x")
    forms = Examples(images, groups=("Caf\u00e9", "Cafe\u0301", "Bar"))
    assert column(forms, "group") == ("Caf\u00e9", "Caf\u00e9", "Bar")
    assert default(examples) == "group" and default(Examples(images)) is None
    with pytest.raises(DataError, match="have no prompts; they have group and label"):
        column(examples, "prompt")
    with pytest.raises(OptionError, match="Did you mean 'label'"):
        column(examples, "lable")


def test_a_csv_names_images_in_any_order_and_may_know_others(written):
    path = written('\ufeffid,artist\nc,Ann\na,"Bo, Jr"\nother,Cy\nb,Ann\n\n')
    assert from_csv(path, ("a", "b", "c")) == ("Bo, Jr", "Ann", "Ann")


def test_ids_are_found_in_another_unicode_form(written):
    path = written("id,artist\nCaf\u00e9.png,Ann\nTe\u0301.png,Bo\n")
    assert from_csv(path, ("Cafe\u0301.png", "T\u00e9.png")) == ("Ann", "Bo")
    twice = written("id,artist\nCaf\u00e9.png,Ann\nCafe\u0301.png,Bo\n")
    with pytest.raises(DataError, match="more than one row for 1 of the 1"):
        from_csv(twice, ("Cafe\u0301.png",))


def test_one_of_several_columns_is_picked_by_name(written):
    path = written("artist,id,licence\nAnn,a,CC\nBo,b,none\n")
    assert from_csv(f"{path}:licence", ("a", "b")) == ("CC", "none")
    with pytest.raises(
        OptionError, match=r"several columns of names: `artist`, `licence`. Say which: .*names.csv:artist"
    ):
        from_csv(path, ("a", "b"))
    with pytest.raises(OptionError, match="Did you mean 'licence'"):
        from_csv(f"{path}:license", ("a", "b"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,artist\na,Ann\n", "has the columns `name`, `artist`; expected `id`"),
        ("id\na\nb\n", "at least one column of names"),
        ("", "has the columns none; expected `id`"),
        ("id,artist\na,Ann\n", "no row for 1 of the 2 training images, the first with id 'b'"),
        ("id,artist\na,Ann\nb,Bo\na,Cy\n", "more than one row for 1 of the 2 .* 'a'.* Keep one row"),
        ("id,artist\na,Ann\nb\n", "no name for 1 of the 2 .* 'b'.* such as `unknown`"),
        (b"id,artist\na,\xff\xfe\n", "no CSV file in UTF-8"),
        ('id,artist\na,"Ann\n', "no CSV file in UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_used_is_told_plainly(written, text, words):
    with pytest.raises(DataError, match=words):
        from_csv(written(text), ("a", "b"))


def test_a_run_keeps_the_groups_and_prompts_of_its_images(pictures, tmp_path):
    pytest.importorskip("torch", reason="a run needs torch")
    from headwater.attribution.experiment import Experiment, run
    from headwater.disk.store import FeatureStore

    train = pictures(6, classes=2, groups=tuple("xyxyxy"), prompts=tuple("abcdef"))
    queries = pictures(2, seed=1, groups=("y", "z"), prompts=("q", ""))
    run(Experiment("pixel", {}, train, queries), tmp_path / "run", FeatureStore(tmp_path / "store"))
    opened = open_run(tmp_path / "run")
    assert opened.groups == train.groups and opened.prompts == train.prompts
    assert opened.queries.groups == ("y", "z") and opened.queries.prompts == queries.prompts
    assert column(opened, "group") == train.groups and default(opened) == "group"
    run(
        Experiment("pixel", {}, pictures(6), pictures(2, seed=1)),
        tmp_path / "bare",
        FeatureStore(tmp_path / "store"),
    )
    bare = open_run(tmp_path / "bare")
    assert bare.groups is None and bare.queries.groups is None and bare.queries.prompts is None
