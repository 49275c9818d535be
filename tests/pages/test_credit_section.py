"""Credit on a page: shares, intervals, and files that the page carries."""

import base64
import json
import re

import numpy as np
import pytest

from headwater import seeds
from headwater.pages.credit.section import CreditLimits
from headwater.pages.page import report
from headwater.run import open_run


def charted(page):
    """The rows of each method's chart of shares: the group, and its share."""
    for table in re.findall(r'<table class="shares">.*?</table>', page, re.DOTALL):
        rows = re.findall(
            r'<th scope="row" title="[^"]*">([^<]*)</th>.*?</svg></td><td class="figure">([\d.]+)',
            table,
            re.DOTALL,
        )
        yield {group: float(share) for group, share in rows}


def test_shares_are_the_mean_over_generated_pictures_with_the_largest_first(make):
    runs = [
        make(name, title=name, scores=seeds.generator(i, "s").random((6, 40), np.float32))
        for i, name in enumerate("ab")
    ]
    for run, chart in zip(runs, charted(report(runs).read_text()), strict=True):
        expected = open_run(run).scores.credit(np.arange(40) % 3).mean([3, 4, 5])
        assert list(chart) == [share.group for share in expected]
        assert list(chart.values()) == pytest.approx([100 * share.share for share in expected], abs=0.051)
    (alone,) = charted(report([make("c", query_split=None)]).read_text())
    expected = open_run(runs[0].parent / "c").scores.credit(np.arange(40) % 3).mean()
    assert list(alone.values()) == pytest.approx([100 * share.share for share in expected], abs=0.051)


def test_only_a_bar_beyond_what_chance_gives_is_coloured(make):
    """With names dealt at random none need be; a group that has all the score is."""
    scores = seeds.generator(0, "s").random((6, 40), np.float32) * np.where(
        np.arange(40) % 4, 0.01, 1
    ).astype(np.float32)
    page = report([make(scores=scores, train_labels=np.arange(40) % 4)]).read_text()
    coloured = re.findall(r'title="(\d)">\d</th><td class="chart"><svg class="bar credit above"', page)
    assert coloured == ["0"] and page.count('<svg class="bar credit"') == 3


def test_each_picture_has_its_shares_with_intervals_and_what_chance_gives(make):
    run = make(train_labels=np.arange(40) % 6)
    tables = re.findall(r'<details class="sure">.*?</details>', report([run]).read_text(), re.DOTALL)
    assert len(tables) == 6
    for query, table in enumerate(tables):
        rows = re.findall(
            r'<th scope="row" title="\d">(\d)</th>' + 3 * r'<td class="figure">([^<]*)</td>', table
        )
        shares = open_run(run).scores.credit(np.arange(40) % 6).of(query)[:4]
        assert [row[0] for row in rows] == [share.group for share in shares]
        for row, share in zip(rows, shares, strict=True):
            figures = [float(figure) for cell in row[1:] for figure in re.findall(r"[\d.]+", cell)]
            ends = [share.share, share.low, share.high, share.even_low, share.even_high]
            assert figures == pytest.approx([100 * end for end in ends], abs=0.051)


def carried(page):
    """The files that a page carries, by name."""
    links = re.findall(r'<a download="([^"]*)" href="data:[a-z/+]*(?:json)?;base64,([^"]*)"', page)
    return {name: base64.b64decode(content).decode() for name, content in links}


def test_the_page_carries_the_files_that_the_command_writes(make, tmp_path):
    from headwater.pages.credit.files import write
    from headwater.pages.credit.run import credited

    run = make(query_images=np.zeros((6, 8, 8, 1), np.uint8))
    files = carried(report([run], queries=4).read_text())
    rows = [0, 1, 3, 4]
    assert list(files) == ["credit.csv", "credit.jsonld"]
    for name, content in files.items():
        write(tmp_path / name, credited(open_run(run), "label"), rows)
        assert (tmp_path / name).read_bytes().decode() == content
    assert [picture["identifier"] for picture in json.loads(files["credit.jsonld"])["about"]] == [
        f"query-{row:03d}" for row in rows
    ]


def test_files_are_named_by_their_method_and_left_out_where_they_are_long(make):
    runs = [make("a", title="One"), make("b", title="Two")]
    assert list(carried(report(runs).read_text())) == [
        f"credit {name}.{kind}" for name in ("One", "Two") for kind in ("csv", "jsonld")
    ]
    fewer = CreditLimits(file=17)  # 6 pictures × 3 groups
    page = report(runs, credit=fewer).read_text()
    assert not carried(page) and page.count("<code>headwater credit … --out credit.csv</code>") == 2
    assert page.count('class="sure"') == 12
    again = report(runs, credit=fewer._replace(intervals=17)).read_text()
    assert 'class="sure"' not in again and re.findall("Credit by [^<]*", again) == re.findall(
        "Credit by [^<]*", page
    )


def test_the_page_says_how_often_a_pictures_own_group_leads(make):
    scores = np.zeros((6, 40), np.float32)
    scores[range(6), [0, 1, 2, 0, 1, 1]] = 1  # generated: labels 0, 1, 2, of which the last is credited to 1
    page = report([make(scores=scores, signed=True)]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "own label in 2 of 3 pictures: 67 %, with a 95 % interval from 21 % to 94 %" in page
    assert "own label" not in report([make("b", query_labels=None)]).read_text()
    groups = np.array([*"abc"] * 2)
    page = report(
        [make("c", scores=scores, train_groups=np.array([*"abc"] * 13 + ["a"]), query_groups=groups)]
    ).read_text()
    assert "own group in 2 of 3 pictures" in page


def test_groups_are_credited_before_labels(make):
    page = report([make(train_groups=np.array(["<i>Ann</i>", "Bo"] * 20))]).read_text()
    assert [set(chart) for chart in charted(page)] == [{"&lt;i&gt;Ann&lt;/i&gt;", "Bo"}]
    assert "Credit by group:" in page and "<i>" not in page


@pytest.mark.parametrize(
    "groups", [None, np.zeros(40, np.int64), np.arange(40)], ids=["unknown", "one", "one for each image"]
)
def test_groups_that_are_none_get_no_section(make, groups):
    page = report([make(train_labels=groups, query_labels=None)]).read_text()
    assert "Who gets the credit" not in page and "Credit by" not in page


def test_of_many_groups_the_strongest_are_shown_and_the_page_says_so(make):
    (chart,) = charted(page := report([make(n=120, train_labels=np.arange(120) % 50)]).read_text())
    assert len(chart) == 40 and "Of 50 groups, the 40 with the largest shares are shown" in page


def test_a_picture_tells_its_strongest_groups_and_one_without_positive_scores_does_not(make):
    scores = np.zeros((2, 40), np.float32)
    scores[0, :8] = [8, 4, 2, 1, 1, 0, 0, 0]  # labels 0 … 7
    scores[1] = -1
    run = make(
        q=2, scores=scores, train_labels=np.arange(40) % 8, query_labels=None, query_split=None, signed=True
    )
    page = report([run]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert re.findall("Credit by [^<]*", page) == [
        "Credit by label: 50 % to 0 (even: 12 %), 25 % to 1 (even: 12 %), 12 % to 2 (even: 12 %), 6.2 % to "
        "3 (even: 12 %) and 6.2 % to the other 4."
    ]
    (strip,) = re.findall(r'<svg class="bar portions".*?</svg>', page, re.DOTALL)
    assert re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', strip) == [
        ("0.0", "50.0"),
        ("50.0", "25.0"),
        ("75.0", "12.5"),
        ("87.5", "6.25"),
    ]


def test_pictures_without_any_positive_score_still_make_a_page(make):
    page = report([make(scores=np.full((6, 40), -1, np.float32), signed=True)]).read_text()
    section = re.findall(r'<section id="credit">.*?</section>', page, re.DOTALL)[0]
    assert (
        list(charted(page)) == [{}]
        and "No training image has a score above 0." in section
        and "nan" not in section
    )
