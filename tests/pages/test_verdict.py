"""Sentences about methods that were compared with retrained models."""

import pytest

from headwater.pages.verdict import Bar, Split, lead, listed, truths, verdict
from headwater.run import open_run
from toy_runs import TRUTH

CHANCE = Bar("Random scores", "random", 0.0, -0.03, 0.03)


def bar(name, value, spread=0.02, **fields):
    return Bar(name, "method", value, value - spread, value + spread, **fields)


def split(*bars, name="held-out"):
    return Split(name, 4, [*bars, CHANCE], None)


def test_an_interval_wholly_below_zero_is_called_the_opposite():
    text = verdict("A", [split(bar("A", -0.2)), split(bar("A", 0.0), name="generated")])
    assert "A predicts the opposite of what retraining does on the held-out pictures" in text
    assert "probably negated" in text


def test_a_similarity_has_no_sign_to_be_negated():
    text = verdict("A", [split(bar("A", -0.2, signed=False))])
    assert "the opposite" in text and "negated" not in text


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.2, "better than chance on"), (0.04, "does not clearly predict"), (-0.01, "does not")],
)
def test_nothing_else_is_called_the_opposite(value, words):
    text = verdict("A", [split(bar("A", value))])
    assert words in text and "opposite" not in text


def test_the_lead_is_paired_and_says_where_it_is_unclear():
    """A and B rise and fall together, so their difference is certain; C is as good as A but for chance."""
    a = bar("A", 0.3, per_query=[0.2, 0.4, 0.3, 0.3], resampled=[0.1, 0.3, 0.5])
    b = bar("B", 0.2, per_query=[0.1, 0.3, 0.4, 0.0], resampled=[0.0, 0.2, 0.4])
    c = bar("C", 0.29, per_query=[0.3, 0.3, 0.3, 0.26], resampled=[0.3, 0.3, 0.3])
    text = lead(split(b, c, a)).replace("\N{NO-BREAK SPACE}", " ")
    assert text == (
        "A is ahead of B (by 0.10, 0.10 to 0.10; above on 75 % of the pictures). "
        "It is not clearly ahead of C (by 0.01, −0.19 to 0.19; above on 50 % of the pictures)."
    )


def test_a_single_method_and_records_without_resamples_have_no_lead():
    assert lead(split(bar("A", 0.3, per_query=[0.3], resampled=[0.3]))) == ""
    assert lead(split(bar("A", 0.3), bar("B", 0.2))) == ""


def test_lists_are_read_aloud():
    assert [listed("abc"[:k]) for k in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_only_an_interval_above_chance_is_called_better(make):
    (truth,) = truths([open_run(make(ground_truth=TRUTH))])
    assert truth.verdicts == [
        "D-TRAK predicts retraining better than chance on the held-out pictures, but not clearly on the "
        "generated."
    ]
    worse = {**TRUTH, "splits": {"gen": TRUTH["splits"]["gen"]}}
    (truth,) = truths([open_run(make("worse", ground_truth=worse))])
    assert "does not clearly predict" in truth.verdicts[0]


def test_figures_of_two_banks_are_never_set_side_by_side(make):
    runs = [open_run(make(bank, ground_truth={**TRUTH, "bank": bank})) for bank in ("one", "two")]
    assert [truth.bank for truth in truths(runs)] == ["one", "two"]
