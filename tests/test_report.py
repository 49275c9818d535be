"""The report: what it shows is what the run folder holds, it is safe to open anywhere, and a browser draws it without complaint."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from headwater import seeds
from headwater.errors import DataError, UserError
from headwater.pages import charts
from headwater.pages.maps import BLEED
from headwater.pages.page import agreement, chosen, open_run, report, truths
from headwater.patches.regions import Regions, write_regions
from headwater.scores import Scores

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync")
DETAILS = {"each": [-0.1, 0.1, 0.2, 0.3, 0.4], "resampled": [0.28, 0.30, 0.34]}
TRUTH = {
    "bank": "digits",
    "measurement": "simple",
    "subsets": 64,
    "seeds": 2,
    "splits": {
        "val": {"queries": 5, "lds": 0.31, "low": 0.28, "high": 0.34, "random": 0.0, "random_low": -0.03, "random_high": 0.03}
        | DETAILS,
        "gen": {"queries": 5, "lds": 0.02, "low": -0.02, "high": 0.06, "random": 0.0, "random_low": -0.03, "random_high": 0.03}
        | DETAILS,
    },
}
VOID = ("meta", "link", "br", "hr", "img", "input")


@pytest.fixture
def make(tmp_path):
    """Write a run folder; whatever is not given is drawn at random, the same each time."""

    def write(name="run", q=6, n=40, size=8, channels=1, **changes):
        draw = seeds.stream(0, "test", "report")
        arrays = {
            "train_images": draw.integers(0, 256, (n, size, size, channels), np.uint8),
            "train_rows": np.arange(n),
            "train_ids": np.array([f"image-{i:03d}" for i in range(n)]),
            "train_labels": np.arange(n) % 3,
            "train_groups": None,
            "train_prompts": None,
            "query_images": draw.integers(0, 256, (q, size, size, channels), np.uint8),
            "query_ids": np.array([f"query-{i:03d}" for i in range(q)]),
            "query_labels": np.arange(q) % 3,
            "query_split": np.array(["val"] * (q - q // 2) + ["gen"] * (q // 2)),
            "query_groups": None,
            "query_prompts": None,
        }
        scores = changes.pop("scores", draw.standard_normal((q, n), dtype=np.float32))
        own = changes.pop("own", draw.standard_normal(n, dtype=np.float32) ** 2)
        arrays |= {key: changes.pop(key) for key in list(changes) if key in arrays}
        info = changes.pop(
            "only", {"method": "d-trak", "title": "D-TRAK", "seconds": {"fit": 61.2}, "headwater": "0.1.0"} | changes
        )
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "scores.npy", scores)
        np.save(folder / "self.npy", own)
        np.savez(folder / "pictures.npz", **{key: value for key, value in arrays.items() if value is not None})
        (folder / "run.json").write_text(json.dumps(info))
        return folder

    return write


@pytest.fixture
def mapped(make):
    """A run with maps of its first two queries, in which training image 7 leads on the left, and 3, mirrored, on the right."""

    def write(**changes):
        folder = make(signed=False, **changes)
        here = np.full((2, 2, 8, 8), 0.1, np.float32)
        here[:, 0, :, :4], here[:, 1, :, 4:] = 0.4, 0.3
        others = np.full((2, 8, 8), 0.2, np.float32)
        others[1, :, :2] = 0.5
        zeros, mirrored = np.zeros((2, 2, 8, 8), np.int16), np.zeros((2, 2, 8, 8), bool)
        mirrored[:, 1] = True
        row, column = zeros + np.arange(8, dtype=np.int16)[:, None], zeros + np.arange(8, dtype=np.int16)
        maps = Regions(
            queries=np.array([0, 1]),
            sides=np.array([8, 8]),
            images=np.array([[7, 3], [7, 3]]),
            here=here,
            others=others,
            there=np.ones((2, 2, 8, 8), np.float32),
            top=row - 1,
            left=column - 1,
            down=np.minimum(2, 7 - row),
            across=np.maximum(-1, -column),
            size=zeros + 3,
            mirrored=mirrored,
        )
        write_regions(folder / "regions.npz", maps)
        return folder

    return write


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as session:
        found = session.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield found
        found.close()


def cards(page):
    """For each query's card: the ids shown as proponents and those shown as opponents."""
    for card in re.findall(r'<article class="query".*?</article>', page, re.DOTALL):
        yield tuple(
            re.findall(r'class="id" title="([^"]*)"', "".join(re.findall(rf'<ol class="thumbs {kind}".*?</ol>', card, re.DOTALL)))
            for kind in ("pro", "opp")
        )


class Balanced(HTMLParser):
    """Counts open tags; fails where one is closed that is not open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_no_torch_is_loaded():
    code = "import sys, headwater.report; print([m for m in ('torch', 'diffusers', 'scipy', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_page_lies_in_the_first_run_or_where_asked(make, tmp_path):
    first, second = make("a"), make("b")
    assert report([first, second]) == first / "report.html"
    assert report([first], tmp_path / "new" / "page.html").is_file()


def test_the_page_refers_to_nothing_outside_itself(make):
    page = report([make(ground_truth=TRUTH)]).read_text()
    assert "http:" not in page and "https:" not in page and "<script" not in page and "url(" not in page
    references = re.findall(r'(?:href|src|srcset|data|action)="([^"]*)"', page)
    assert references and all(target.startswith(("#", "data:")) for target in references)


def test_every_inner_link_has_a_target_and_every_tag_is_closed(make):
    page = report([make("a", ground_truth=TRUTH), make("b", title="TRAK")]).read_text()
    names = re.findall(r'\bid="([^"]*)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(names)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_proponents_and_opponents_are_the_extremes_of_the_scores(make):
    run = make()
    scores, ids = np.load(run / "scores.npy"), np.load(run / "pictures.npz")["train_ids"]
    shown = list(cards(report([run]).read_text()))
    assert len(shown) == len(scores)
    for row, (proponents, opponents) in zip(scores, shown, strict=True):
        order = np.argsort(row)
        assert proponents == ids[order[::-1][:8]].tolist()
        assert opponents == ids[order[:5]].tolist()


def test_as_many_proponents_and_opponents_as_are_asked_for(make):
    for proponents, opponents in cards(report([make()], proponents=5, opponents=3).read_text()):
        assert (len(proponents), len(opponents)) == (5, 3)


def test_an_image_that_would_lower_no_loss_is_no_opponent(make):
    scores = np.arange(80, dtype=np.float32).reshape(2, 40) - 2  # the first query has two scores below 0, the second none
    page = report([make(q=2, scores=scores, signed=True)]).read_text()
    (_, two), (_, none) = cards(page)
    assert two == ["image-000", "image-001"] and none == []
    assert "No training image has a score below 0." in page


def test_similarities_have_no_opponents(make):
    page = report([make(q=2, scores=np.abs(np.load(make("other", q=2) / "scores.npy")), signed=False)]).read_text()
    assert "Least similar" in page and "pponent" not in page.split("</style>")[1]


def test_markup_in_names_is_escaped(make):
    bad = '<script>alert("1")</script>'
    names = {"train_ids": np.array([bad] * 40), "query_ids": np.array([bad] * 6)}
    prompts = {"train_prompts": np.array([f'" {bad}'] * 40), "query_prompts": np.array([bad] * 6)}
    run = make(**names, **prompts, title=bad, notes=[bad], models=[{"path": bad}])
    page = report([run]).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_picture_is_shown_with_its_prompt_and_one_without_shows_none(make):
    train, query = np.array([f"number {i:02d}" for i in range(40)]), np.array(["", *(f"asked for {i}" for i in range(1, 6))])
    run = make(train_prompts=train, query_prompts=query)
    page = report([run]).read_text()
    for row, card in enumerate(re.findall(r'<article class="query".*?</article>', page, re.DOTALL)):
        assert re.findall(r'<p class="prompt">(.*?)</p>', card) == [word for word in query[row : row + 1] if word]
        shown = [(int(i), f"number {j}") for i, j in re.findall(r'title="image-(\d+)".*?\n?.*?title="number (\d+)"', card)]
        assert len(shown) == 13 and all(train[i] == word for i, word in shown)
    assert 'class="prompt"' not in report([make("bare")]).read_text()


def test_a_long_prompt_is_cut_where_pictures_are_small_and_whole_in_its_title(make):
    long = "word " * 60 + "end"
    page = report([make(train_prompts=np.array([long] * 40))]).read_text()
    (title, text), *_ = re.findall(r'<span class="prompt" title="(.*?)">(.*?)</span>', page)
    assert title == long and text.endswith("…") and len(text) <= 80


def test_a_file_name_that_is_no_text_still_makes_a_page(make):
    assert report([make(train_ids=np.array(["caf\udce9.png"] * 40))]).read_bytes().decode()


def test_each_distinct_picture_is_embedded_once(make):
    images = np.repeat(seeds.stream(0, "few").integers(0, 256, (5, 8, 8, 1), np.uint8), 8, axis=0)
    page = report([make(train_images=images, query_images=images[:6])]).read_text()
    assert page.count("data:image/png") == 5


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_through_unchanged(make, channels):
    run = make(channels=channels)
    pngs = re.findall(r"data:image/png;base64,([^\"]*)", report([run]).read_text())
    shown = {np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).tobytes() for png in pngs}
    assert {image.tobytes() for image in np.load(run / "pictures.npz")["query_images"]} <= shown


def test_a_picture_that_the_folder_does_not_keep_is_told(make):
    kept = np.arange(3)
    run = make(train_rows=kept, train_images=np.zeros((3, 8, 8, 1), np.uint8))
    assert "no picture kept" in report([run]).read_text()


def test_many_queries_are_cut_to_the_first_of_each_split_and_the_page_says_so(make):
    run = make(q=200)
    page = report([run]).read_text()
    assert page.count('<article class="query"') == 48
    assert "48 of the 200 pictures are shown" in page
    assert chosen(open_run(run).queries, 6) == [0, 1, 2, 100, 101, 102]
    assert chosen(open_run(run).queries, 500) == list(range(200))


def test_two_hundred_queries_in_full_stay_under_three_megabytes(make):
    page = report([make(q=200, n=1000)], queries=200)
    assert page.read_text().count('<article class="query"') == 200
    assert page.stat().st_size < 3e6


def test_the_reading_says_what_the_scores_say(make):
    scores = np.full((1, 40), 0.01, np.float32)
    scores[0, :8] = 1.0
    labels = np.array([7] * 6 + [1] * 34)
    run = make(q=1, scores=scores, train_labels=labels, query_labels=np.array([7]), query_split=None)
    text = report([run]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    # 8 / (8 + 32 × 0.01) = 96 %, and 8 of 40 is 20 %
    assert (
        "The 8 strongest of 40 training images carry 96 % of all positive score (spread evenly over the 40 above 0: 20 %)" in text
    )
    assert "6 of the 8 have its label, 7." in text


def test_a_constant_self_influence_is_not_ranked(make):
    own = np.full(40, 0.1, np.float32)
    own[3] = np.nextafter(own[3], np.float32(1))
    page = report([make(own=own)]).read_text()
    assert "the same self-influence" in page and "Most self-influential" not in page


def test_self_influence_shows_the_extremes(make):
    own = np.arange(40, dtype=np.float32)
    page = report([make(own=own)]).read_text()
    most, least = re.findall(r'<ol class="thumbs self".*?</ol>', page, re.DOTALL)
    assert re.findall(r' title="([^"]*)"', most)[:2] == ["image-039", "image-038"]
    assert re.findall(r'title="([^"]*)"', least)[:2] == ["image-000", "image-001"]


def test_agreement_is_spearmans_correlation_with_ties_and_the_shared_first_ten():
    draw = seeds.stream(0, "agree")
    a, b = (draw.integers(0, 9, (4, 50)).astype(np.float32) for _ in range(2))
    each = [Scores(v, tuple("abcd"), tuple(map(str, range(50))), v[0]) for v in (a, b)]
    correlation, shared = agreement(*each)
    assert correlation == pytest.approx(np.mean([spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]))
    assert shared == np.mean([len({*p} & {*q}) for p, q in zip(each[0].top(10).rows, each[1].top(10).rows, strict=True)])
    assert agreement(each[0], each[0]) == (pytest.approx(1), 10)


def charted(page):
    """The rows of each method's chart of shares: the group, and its share."""
    for table in re.findall(r'<table class="shares">.*?</table>', page, re.DOTALL):
        rows = re.findall(r'<th scope="row" title="[^"]*">([^<]*)</th>.*?</svg></td><td class="figure">([\d.]+)', table, re.DOTALL)
        yield {group: float(share) for group, share in rows}


def test_shares_are_the_mean_over_generated_pictures_with_the_largest_first(make):
    runs = [make(name, title=name, scores=seeds.stream(i, "s").random((6, 40), np.float32)) for i, name in enumerate("ab")]
    for run, chart in zip(runs, charted(report(runs).read_text()), strict=True):
        expected = open_run(run).scores.credit(np.arange(40) % 3).mean([3, 4, 5])
        assert list(chart) == [each.group for each in expected]
        assert list(chart.values()) == pytest.approx([100 * each.share for each in expected], abs=0.051)
    (alone,) = charted(report([make("c", query_split=None)]).read_text())
    expected = open_run(runs[0].parent / "c").scores.credit(np.arange(40) % 3).mean()
    assert list(alone.values()) == pytest.approx([100 * each.share for each in expected], abs=0.051)


def test_only_a_bar_beyond_what_chance_gives_is_coloured(make):
    """With names dealt at random none need be; a group that has all the score is."""
    scores = seeds.stream(0, "s").random((6, 40), np.float32) * np.where(np.arange(40) % 4, 0.01, 1).astype(np.float32)
    page = report([make(scores=scores, train_labels=np.arange(40) % 4)]).read_text()
    coloured = re.findall(r'title="(\d)">\d</th><td class="chart"><svg class="bar credit above"', page)
    assert coloured == ["0"] and page.count('<svg class="bar credit"') == 3


def test_each_picture_has_its_shares_with_intervals_and_what_chance_gives(make):
    run = make(train_labels=np.arange(40) % 6)
    tables = re.findall(r'<details class="sure">.*?</details>', report([run]).read_text(), re.DOTALL)
    assert len(tables) == 6
    for query, table in enumerate(tables):
        rows = re.findall(r'<th scope="row" title="\d">(\d)</th>' + 3 * r'<td class="figure">([^<]*)</td>', table)
        told = open_run(run).scores.credit(np.arange(40) % 6).of(query)[:4]
        assert [row[0] for row in rows] == [each.group for each in told]
        for row, each in zip(rows, told, strict=True):
            figures = [float(figure) for cell in row[1:] for figure in re.findall(r"[\d.]+", cell)]
            ends = [each.share, each.low, each.high, each.even_low, each.even_high]
            assert figures == pytest.approx([100 * end for end in ends], abs=0.051)


def carried(page):
    """The files that a page carries, by name."""
    found = re.findall(r'<a download="([^"]*)" href="data:[a-z/+]*(?:json)?;base64,([^"]*)"', page)
    return {name: base64.b64decode(content).decode() for name, content in found}


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
    assert [each["identifier"] for each in json.loads(files["credit.jsonld"])["about"]] == [f"query-{row:03d}" for row in rows]


def test_files_are_named_by_their_method_and_left_out_where_they_are_long(make, monkeypatch):
    runs = [make("a", title="One"), make("b", title="Two")]
    assert list(carried(report(runs).read_text())) == [
        f"credit {name}.{kind}" for name in ("One", "Two") for kind in ("csv", "jsonld")
    ]
    monkeypatch.setattr("headwater.pages.credit.section.FILE", 17)  # 6 pictures × 3 groups
    page = report(runs).read_text()
    assert not carried(page) and page.count("<code>headwater credit … --out credit.csv</code>") == 2
    assert page.count('class="sure"') == 12
    monkeypatch.setattr("headwater.pages.credit.section.SURE", 17)
    again = report(runs).read_text()
    assert 'class="sure"' not in again and re.findall("Credit by [^<]*", again) == re.findall("Credit by [^<]*", page)


def test_the_page_says_how_often_a_pictures_own_group_leads(make):
    scores = np.zeros((6, 40), np.float32)
    scores[range(6), [0, 1, 2, 0, 1, 1]] = 1  # generated: labels 0, 1, 2, of which the last is credited to 1
    page = report([make(scores=scores, signed=True)]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "own label in 2 of 3 pictures: 67 %, with a 95 % interval from 21 % to 94 %" in page
    assert "own label" not in report([make("b", query_labels=None)]).read_text()
    groups = np.array([*"abc"] * 2)
    page = report([make("c", scores=scores, train_groups=np.array([*"abc"] * 13 + ["a"]), query_groups=groups)]).read_text()
    assert "own group in 2 of 3 pictures" in page


def test_groups_are_credited_before_labels(make):
    page = report([make(train_groups=np.array(["<i>Ann</i>", "Bo"] * 20))]).read_text()
    assert [set(chart) for chart in charted(page)] == [{"&lt;i&gt;Ann&lt;/i&gt;", "Bo"}]
    assert "Credit by group:" in page and "<i>" not in page


@pytest.mark.parametrize("groups", [None, np.zeros(40, np.int64), np.arange(40)], ids=["unknown", "one", "one for each image"])
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
    run = make(q=2, scores=scores, train_labels=np.arange(40) % 8, query_labels=None, query_split=None, signed=True)
    page = report([run]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert re.findall("Credit by [^<]*", page) == [
        "Credit by label: 50 % to 0 (even: 12 %), 25 % to 1 (even: 12 %), 12 % to 2 (even: 12 %), 6.2 % to 3 (even: 12 %) "
        "and 6.2 % to the other 4."
    ]
    (strip,) = re.findall(r'<svg class="bar portions".*?</svg>', page)
    assert re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', strip) == [
        ("0.0", "50.0"),
        ("50.0", "25.0"),
        ("75.0", "12.5"),
        ("87.5", "6.25"),
    ]


def test_pictures_without_any_positive_score_still_make_a_page(make):
    page = report([make(scores=np.full((6, 40), -1, np.float32), signed=True)]).read_text()
    section = re.findall(r'<section id="credit">.*?</section>', page, re.DOTALL)[0]
    assert list(charted(page)) == [{}] and "No training image has a score above 0." in section and "nan" not in section


def test_methods_of_one_name_are_distinguished_by_the_fields_they_differ_in(make):
    ten, hundred = ({"fields": {"timesteps": count, "k": 4096}} for count in (10, 100))
    page = report([make("a", **ten), make("b", **hundred), make("c", title="TRAK", **ten)]).read_text()
    assert "D-TRAK (timesteps 10)" in page and "D-TRAK (timesteps 100)" in page and "TRAK (k" not in page and "/a)" not in page


def test_methods_of_one_name_and_fields_are_distinguished_by_their_folders(make):
    page = report([make("a"), make("b"), make("c", title="TRAK")]).read_text()
    assert "/a)" in page and "/b)" in page and "/c)" not in page
    assert "Do the methods agree?" in page


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
    ids=["another number", "other ids", "other pixels", "another fingerprint", "other query pixels", "another query fingerprint"],
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
        ({"scores": np.full((6, 40), np.inf, np.float32)}, "query-000 and training image image-000 is not finite"),
        ({"train_ids": None}, "lacks .*train_ids"),
        ({"train_rows": np.arange(7)}, "40 `train_images` and 7 `train_rows`"),
        ({"query_prompts": np.array(["a"] * 7)}, "7 `query_prompts` and 6 `query_ids`"),
    ],
    ids=["scores' shape", "self-influence's shape", "NaN", "infinity", "no ids", "too few rows", "too many prompts"],
)
def test_arrays_that_do_not_fit_are_refused(make, change, words):
    with pytest.raises(UserError, match=words):
        report([make(**change)])


def test_no_run_at_all_is_refused():
    with pytest.raises(DataError, match="No run was given"):
        report([])


def test_a_record_that_says_nothing_still_makes_a_page(make):
    page = report([make(only={}, train_labels=None, query_labels=None, query_split=None)]).read_text()
    assert "These scores were not tested" in page


def test_only_an_interval_above_chance_is_called_better(make):
    (truth,) = truths([open_run(make(ground_truth=TRUTH))])
    assert truth.verdicts == [
        "D-TRAK predicts retraining better than chance on the held-out pictures, but not clearly on the generated."
    ]
    worse = {**TRUTH, "splits": {"gen": TRUTH["splits"]["gen"]}}
    (truth,) = truths([open_run(make("worse", ground_truth=worse))])
    assert "does not clearly predict" in truth.verdicts[0]


def test_figures_of_two_banks_are_never_set_side_by_side(make):
    runs = [open_run(make(bank, ground_truth={**TRUTH, "bank": bank})) for bank in ("one", "two")]
    assert [truth.info["bank"] for truth in truths(runs)] == ["one", "two"]


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
    assert charts.number(-0.001) == "0.00"


def test_prose_shows_code_and_subscripts_and_nothing_else():
    assert charts.prose("x_t, Σ_{i∈A}, `a_b`, no_name <b>") == "x<sub>t</sub>, Σ<sub>i∈A</sub>, <code>a_b</code>, no_name &lt;b&gt;"


def test_streams_share_the_river_by_weight():
    a, b = (charts.Gallery({}).add(np.full((8, 8, 1), level, np.uint8)) for level in (0, 255))
    wide, narrow = re.findall(r'stroke-width="([^"]*)"', charts.streams([(a, 3.0), (b, 1.0)], a))
    assert float(wide) == 3 * float(narrow)


def test_every_score_is_in_the_histogram_and_a_mark_lies_at_its_score():
    values = np.array([-1, 0, 0, 3], np.float32)
    drawn = charts.histogram(values, values[3:], values[:1], charts.scale_of(values, signed=True))
    assert 'cx="100.0%"' in drawn and '<svg class="over" x="0.0%"' in drawn and 'class="zero" x1="25.0%"' in drawn
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
        return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_a_map_says_which_image_leads_where(mapped):
    (first, *_), page = map_cards(report([mapped()]).read_text()), report([mapped(name="again")]).read_text()
    assert page.count('class="map"') == 2
    assert re.findall(r"<b>([A-F])</b> (\d+) parts?", first) == [("A", "32"), ("B", "32")]
    assert "explains 35\N{NO-BREAK SPACE}% of it on average" in first  # (0.4 + 0.3)/2
    assert re.findall(r"<b>(.*?)</b><i", first)[:2] == ["40\N{NO-BREAK SPACE}%", "10\N{NO-BREAK SPACE}%"]
    assert first.count('class="behind"') == 64
    assert "means over" not in first and not struck(first)


def struck(card):
    """How many parts have a line through them."""
    return len(re.findall(r"l1 -1", re.findall(r'class="seam" d="(.*?)"', card)[0]))


def test_a_part_that_another_image_may_explain_better_is_struck_through_and_told(mapped):
    _, second = map_cards(report([mapped()]).read_text())
    assert struck(second) == 16 and second.count("Behind this part, as far as is known") == 16
    assert "not known in 16 of the 64 parts" in second
    assert re.findall(r"<b>([A-F])</b> (\d+) parts?", second) == [("A", "32"), ("B", "16")]  # 3 leads on the right, 7 in the rest


def test_a_map_of_an_ensemble_says_that_it_is_of_the_first(mapped):
    page = report([mapped(models=[{"path": "a"}, {"path": "b"}, {"path": "c"}])]).read_text()
    assert all("means over 3 models" in card and "of the first and its noise alone" in card for card in map_cards(page))


def test_frames_and_pieces_stay_within_their_pictures(mapped):
    """Patches of the first and the last tiles reach over the edge."""
    for card in map_cards(report([mapped()]).read_text()):
        boxes = re.findall(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"/>', card)
        boxes += [box.split() for box in re.findall(r'<svg x=.*?viewBox="(.*?)"', card)]
        assert len(boxes) == 64 * 3
        for x, y, width, height in ([float(each) for each in box] for box in boxes):
            assert min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= 8 * (1 + BLEED)


def test_a_patch_is_framed_where_it_lies(mapped):
    first = map_cards(report([mapped()]).read_text())[0]
    frames = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', first)
    assert frames[2 * (3 * 8 + 5)] == ("2", "4", "3", "3")  # row 3, column 5: 2 further down, 1 to the left, and then mirrored
    compared = re.findall(r'class="compared" style="(.*?)"', first)
    assert compared[3 * 8 + 5] == "left:50%;top:25%;width:37.5%;height:37.5%"
    assert compared[0] == "left:0%;top:0%;width:25%;height:25%"  # of 3 × 3 pixels, one beyond the edge


def map_cards(page):
    """What stands in each map."""
    return [part.split("</article>")[0] for part in page.split('class="map"')[1:]]


def test_a_map_of_other_pictures_is_refused(mapped, make):
    run, small = mapped(), make("small", n=5)
    (small / "regions.npz").write_bytes((run / "regions.npz").read_bytes())
    with pytest.raises(DataError, match="other pictures"):
        report([small])


def test_what_is_behind_a_part_is_shown_where_it_is_pointed_at(mapped, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report([mapped()]).as_uri())
    part = page.locator(".tiles li").nth(9)
    behind, sources = part.locator(".behind"), page.locator(".from").first
    assert not behind.is_visible() and sources.is_visible()
    part.hover()
    assert behind.is_visible() and not sources.is_visible()
    box, card = behind.bounding_box(), page.locator(".map").first.bounding_box()
    page.close()
    assert card["x"] <= box["x"] and box["x"] + box["width"] <= card["x"] + card["width"] + 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_browser_draws_the_page_without_overflow_complaint_or_request(make, mapped, browser, width, runs, tmp_path):
    long = np.array([f"a/very/long/folder/name/that/goes/on/and/on/{i:05d}_{'x' * 40}.png" for i in range(40)])
    words = {"train_ids": long, "query_ids": long[:6], "train_groups": np.array([f"Ann with the long name{'e' * 90}", "Bo"] * 20)}
    words |= {"train_prompts": np.array([f"a {'very ' * 40}red car", "x" * 300] * 20), "query_prompts": np.array(["y" * 300] * 6)}
    folders = [make(f"run-{i}", title=f"Method {i}", ground_truth=TRUTH, **words) for i in range(runs)]
    (folders[0] / "regions.npz").write_bytes((mapped(name="mapped") / "regions.npz").read_bytes())
    path = report(folders)
    page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=True)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    room, needed = page.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    decoded = page.evaluate(
        "Promise.all([...document.querySelectorAll('image')].map(i => i.decode().then(() => 1))).then(d => d.length)"
    )
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.close()
    assert needed <= room
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert decoded == path.read_text().count("data:image/png") > 0
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png")))) > 50  # something was drawn
