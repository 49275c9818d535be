"""The report: safe to open anywhere, whatever the run folder holds."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest

from headwater.pages.page import report
from headwater.pages.template import render
from toy_runs import TRUTH

VOID = ("meta", "link", "br", "hr", "img", "input")


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
    heavy = "('torch', 'diffusers', 'scipy', 'sklearn')"
    code = f"import sys, headwater.pages.page; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


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


def test_markup_in_names_is_escaped(make):
    bad = '<script>alert("1")</script>'
    names = {"train_ids": np.array([bad] * 40), "query_ids": np.array([bad] * 6)}
    prompts = {"train_prompts": np.array([f'" {bad}'] * 40), "query_prompts": np.array([bad] * 6)}
    run = make(**names, **prompts, title=bad, notes=[bad], models=[{"path": bad}])
    page = report([run]).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_file_name_that_is_no_text_still_makes_a_page(make):
    assert report([make(train_ids=np.array(["caf\udce9.png"] * 40))]).read_bytes().decode()


def test_two_hundred_queries_in_full_stay_under_three_megabytes(make):
    page = report([make(q=200, n=1000)], queries=200)
    assert page.read_text().count('<article class="query"') == 200
    assert page.stat().st_size < 3e6


def test_methods_of_one_name_are_told_apart_by_the_fields_they_differ_in(make):
    ten, hundred = ({"fields": {"timesteps": count, "k": 4096}} for count in (10, 100))
    page = report([make("a", **ten), make("b", **hundred), make("c", title="TRAK", **ten)]).read_text()
    assert (
        "D-TRAK (timesteps 10)" in page
        and "D-TRAK (timesteps 100)" in page
        and "TRAK (k" not in page
        and "/a)" not in page
    )


def test_methods_of_one_name_and_fields_are_told_apart_by_their_folders(make):
    page = report([make("a"), make("b"), make("c", title="TRAK")]).read_text()
    assert "/a)" in page and "/b)" in page and "/c)" not in page
    assert "Do the methods agree?" in page


def test_a_record_that_says_nothing_still_makes_a_page(make):
    page = report([make(only={}, train_labels=None, query_labels=None, query_split=None)]).read_text()
    assert "These scores were not tested" in page


def test_the_function_reports_twice_in_one_process(make):
    """`headwater.report` is looked up lazily; nothing that it imports may take its name."""
    runs = "[[sys.argv[1]], [sys.argv[2]]]"
    code = f"import sys, headwater; print(*(headwater.report(run).name for run in {runs}))"
    run = [sys.executable, "-c", code, make("a"), make("b")]
    assert (
        subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["report.html"] * 2
    )


def test_a_name_that_a_template_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'record' is undefined"):
        render("removal.html")
