"""The pictures of a page: the images in a row, their prompts and pictures, and the sentences below."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from headwater import seeds
from headwater.pages.page import agreement, report
from headwater.run import first_queries, open_run
from headwater.scores import Scores


def cards(page):
    """For each query's card: the ids shown as proponents and those shown as opponents."""
    for card in re.findall(r'<article class="query".*?</article>', page, re.DOTALL):
        yield tuple(
            re.findall(
                r'class="id" title="([^"]*)"',
                "".join(re.findall(rf'<ol class="thumbs {kind}".*?</ol>', card, re.DOTALL)),
            )
            for kind in ("pro", "opp")
        )


def test_proponents_and_opponents_are_the_extremes_of_the_scores(make):
    run = make()
    scores, ids = np.load(run / "scores.npy"), np.load(run / "pictures.npz")["train_ids"]
    rows = list(cards(report([run]).read_text()))
    assert len(rows) == len(scores)
    for row, (proponents, opponents) in zip(scores, rows, strict=True):
        order = np.argsort(row)
        assert proponents == ids[order[::-1][:8]].tolist()
        assert opponents == ids[order[:5]].tolist()


def test_as_many_proponents_and_opponents_as_are_asked_for(make):
    for proponents, opponents in cards(report([make()], proponents=5, opponents=3).read_text()):
        assert (len(proponents), len(opponents)) == (5, 3)


def test_an_image_that_would_lower_no_loss_is_no_opponent(make):
    # the first query has two scores below 0, the second none
    scores = np.arange(80, dtype=np.float32).reshape(2, 40) - 2
    page = report([make(q=2, scores=scores, signed=True)]).read_text()
    (_, two), (_, none) = cards(page)
    assert two == ["image-000", "image-001"] and none == []
    assert "No training image has a score below 0." in page


def test_similarities_have_no_opponents(make):
    page = report(
        [make(q=2, scores=np.abs(np.load(make("other", q=2) / "scores.npy")), signed=False)]
    ).read_text()
    assert "Least similar" in page and "pponent" not in page.split("</style>")[1]


def test_a_picture_is_shown_with_its_prompt_and_one_without_shows_none(make):
    train, query = (
        np.array([f"number {i:02d}" for i in range(40)]),
        np.array(["", *(f"asked for {i}" for i in range(1, 6))]),
    )
    run = make(train_prompts=train, query_prompts=query)
    page = report([run]).read_text()
    for row, card in enumerate(re.findall(r'<article class="query".*?</article>', page, re.DOTALL)):
        assert re.findall(r'<p class="prompt">(.*?)</p>', card) == [
            word for word in query[row : row + 1] if word
        ]
        images = [
            (int(i), f"number {j}")
            for i, j in re.findall(r'title="image-(\d+)".*?\n?.*?title="number (\d+)"', card)
        ]
        assert len(images) == 13 and all(train[i] == word for i, word in images)
    assert 'class="prompt"' not in report([make("bare")]).read_text()


def test_a_long_prompt_is_cut_where_pictures_are_small_and_whole_in_its_title(make):
    long = "word " * 60 + "end"
    page = report([make(train_prompts=np.array([long] * 40))]).read_text()
    (title, text), *_ = re.findall(r'<span class="prompt" title="(.*?)">(.*?)</span>', page)
    assert title == long and text.endswith("…") and len(text) <= 80


def test_each_distinct_picture_is_embedded_once(make):
    images = np.repeat(seeds.generator(0, "few").integers(0, 256, (5, 8, 8, 1), np.uint8), 8, axis=0)
    page = report([make(train_images=images, query_images=images[:6])]).read_text()
    assert page.count("data:image/png") == 5


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_through_unchanged(make, channels):
    run = make(channels=channels)
    pngs = re.findall(r"data:image/png;base64,([^\"]*)", report([run]).read_text())
    contents = {np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).tobytes() for png in pngs}
    assert {image.tobytes() for image in np.load(run / "pictures.npz")["query_images"]} <= contents


def test_a_picture_that_the_folder_does_not_keep_is_told(make):
    rows = np.arange(3)
    run = make(train_rows=rows, train_images=np.zeros((3, 8, 8, 1), np.uint8))
    assert "no picture kept" in report([run]).read_text()


def test_many_queries_are_cut_to_the_first_of_each_split_and_the_page_says_so(make):
    run = make(q=200)
    page = report([run]).read_text()
    assert page.count('<article class="query"') == 48
    assert "48 of the 200 pictures are shown" in page
    assert first_queries(open_run(run).queries, 6) == [0, 1, 2, 100, 101, 102]
    assert first_queries(open_run(run).queries, 500) == list(range(200))


def test_the_reading_says_what_the_scores_say(make):
    scores = np.full((1, 40), 0.01, np.float32)
    scores[0, :8] = 1.0
    labels = np.array([7] * 6 + [1] * 34)
    run = make(q=1, scores=scores, train_labels=labels, query_labels=np.array([7]), query_split=None)
    text = report([run]).read_text().replace("\N{NO-BREAK SPACE}", " ")
    # 8 / (8 + 32 × 0.01) = 96 %, and 8 of 40 is 20 %
    assert (
        "The 8 strongest of 40 training images carry 96 % of all positive score (spread evenly over the 40 "
        "above 0: 20 %)" in text
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
    draw = seeds.generator(0, "agree")
    a, b = (draw.integers(0, 9, (4, 50)).astype(np.float32) for _ in range(2))
    scores = [Scores(v, tuple("abcd"), tuple(map(str, range(50))), v[0]) for v in (a, b)]
    correlation, shared = agreement(*scores)
    assert correlation == pytest.approx(
        np.mean([spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])
    )
    assert shared == np.mean(
        [len({*p} & {*q}) for p, q in zip(scores[0].top(10).rows, scores[1].top(10).rows, strict=True)]
    )
    assert agreement(scores[0], scores[0]) == (pytest.approx(1), 10)
