"""Runs that cannot be reported are refused by name, and nothing is overwritten."""

import re

import numpy as np
import pytest

from headwater.errors import DataError, UserError
from headwater.pages.page import report
from headwater.run import open_run
from toy_credit import NAMES


@pytest.mark.parametrize(
    ("side", "change"),
    [
        ("training images", {"n": 41}),
        ("training images", {"train_ids": np.array([f"other-{i}" for i in range(40)])}),
        ("training images", {"train_images": np.zeros((40, 8, 8, 1), np.uint8)}),
        ("training images", {"train": {"fingerprint": "b"}}),
        ("queries", {"query_images": np.zeros((6, 8, 8, 1), np.uint8)}),
        ("queries", {"query": {"fingerprint": "b"}}),
    ],
    ids=[
        "another number",
        "other ids",
        "other pixels",
        "another fingerprint",
        "other query pixels",
        "another query fingerprint",
    ],
)
def test_runs_of_other_pictures_are_refused_by_name(make, side, change):
    first = make("first", train={"fingerprint": "a"}, query={"fingerprint": "a"})
    second = make("second", **({"train": {"fingerprint": "a"}, "query": {"fingerprint": "a"}} | change))
    (first / "report.html").write_text("the page before")
    with pytest.raises(DataError, match=f"second has other {side} than .*first"):
        report([first, second])
    assert (first / "report.html").read_text() == "the page before"
    assert not list(first.glob(".*part"))


@pytest.mark.parametrize("name", ["scores.npy", "self.npy", "pictures.npz", "run.json"])
@pytest.mark.parametrize("harm", ["missing", "cut short", "empty"])
def test_a_damaged_run_is_told_plainly(make, name, harm):
    run = make()
    content = (run / name).read_bytes()
    (run / name).unlink()
    if harm != "missing":
        (run / name).write_bytes(content[: len(content) // 2] if harm == "cut short" else b"")
    with pytest.raises(DataError, match=re.escape(name)):
        report([run])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.zeros((5, 40), np.float32)}, r"has scores \[5, 40\].* expected \[6, 40\]"),
        ({"own": np.zeros(39, np.float32)}, r"self-influence \[39\].* expected .*\[40\]"),
        ({"own": np.where(np.arange(40) == 7, np.nan, 1).astype(np.float32)}, "all finite"),
        (
            {"scores": np.full((6, 40), np.inf, np.float32)},
            "query-000 and training image image-000 is not finite",
        ),
        ({"train_ids": None}, "lacks .*train_ids"),
        ({"train_rows": np.arange(7)}, "40 `train_images` and 7 `train_rows`"),
        ({"query_prompts": np.array(["a"] * 7)}, "7 `query_prompts` and 6 `query_ids`"),
    ],
    ids=[
        "scores' shape",
        "self-influence's shape",
        "NaN",
        "infinity",
        "no ids",
        "too few rows",
        "too many prompts",
    ],
)
def test_arrays_that_do_not_fit_are_refused(make, change, words):
    with pytest.raises(UserError, match=words):
        report([make(**change)])


def test_no_run_at_all_is_refused():
    with pytest.raises(DataError, match="No run was given"):
        report([])


def test_groups_that_do_not_fit_the_training_images_are_refused(run_folder):
    with pytest.raises(DataError, match="9 `train_groups` and 10 `train_ids`"):
        open_run(run_folder(train_groups=np.array(NAMES[:9])))
