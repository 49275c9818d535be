"""`headwater credit`: tables of shares for each split and each query."""

import json
import re

import numpy as np
import pytest

from headwater.credit.shares import by_group
from headwater.pages.credit.run import credited
from headwater.pages.credit.table import as_text, credit_figures
from headwater.run import open_run
from toy_credit import NAMES, SPLIT


def test_the_command_prints_a_table_for_each_split_sorted_by_share(run_credit, run_folder, values):
    code, out, err = run_credit(run_folder(train_groups=np.array(NAMES), query_split=SPLIT))
    assert (code, err) == (0, "")
    tables = out.split("\n\n")[1:]
    assert [table.split(",")[0] for table in tables] == ["val", "gen"]
    for table, rows in zip(tables, (range(3), range(3, 7)), strict=True):
        expected = [row.group for row in by_group(values[rows], NAMES).mean()]
        assert [line[0] for line in table.strip().splitlines()[1:]] == expected


def test_json_has_every_figure_and_no_nan(run_credit, run_folder, values, tmp_path):
    values[5] = -1
    folder = run_folder(train_labels=np.arange(10) % 3, train_groups=np.array(NAMES), query_split=SPLIT)
    _, out, _ = run_credit(folder, "--by", "label", "--query", "query-5", "--json")
    record = json.loads(out, parse_constant=pytest.fail)
    credit = by_group(values, np.arange(10) % 3)
    assert record["by"] == "label" and record["images"] == 10 and record["signed"] is True
    assert record["splits"]["gen"]["without_shares"] == 1
    assert record["splits"]["val"]["groups"] == [row._asdict() for row in credit.mean(range(3))]
    (query,) = record["queries"]
    assert query["query"] == "query-5" and {row["share"] for row in query["groups"]} == {None}
    assert sorted(row["net"] for row in query["groups"]) == [-4, -3, -3]
    _, out, _ = run_credit(folder, "--query", "query-5")
    assert "query-5 (gen)" in out and "nan" not in out and "1 of these queries have no score above 0" in out


def test_the_first_queries_can_be_had_one_by_one(run_credit, run_folder, values):
    _, out, _ = run_credit(run_folder(train_groups=np.array(NAMES)), "--queries", 2, "--json")
    first, second = json.loads(out)["queries"]
    assert (first["query"], second["query"]) == ("query-0", "query-1")
    assert second["groups"] == [row._asdict() for row in by_group(values, NAMES).of(1)]


def test_the_command_tells_how_often_a_pictures_own_group_leads(run_credit, run_folder, values):
    """By groups of the queries, by labels (−1 is none), and by a CSV file in so far as it has the queries'
    groups."""
    leads = [by_group(values, NAMES).of(query)[0].group for query in range(7)]
    groups = [*leads[:4], "nobody", "a" if leads[5] != "a" else "b", leads[6]]
    folder = run_folder(
        train_groups=np.array(NAMES), query_groups=np.array(groups), query_labels=np.full(7, -1)
    )
    record = json.loads(run_credit(folder, "--json")[1])["splits"]["all"]["right"]
    assert (record["pictures"], record["right"]) == (6, 5)
    assert record["even"] == pytest.approx(
        np.mean([NAMES.count(name) / 10 for name in groups if name != "nobody"])
    )
    code, out, _ = run_credit(folder)
    assert (
        code == 0
        and "own group's in 5 of 6 pictures: 83.3 %, 95 % interval 43.6 to 97.0 %" in out
        and "random scores" in out
    )


def test_labels_of_queries_are_their_groups_where_images_go_by_label(run_credit, run_folder, values):
    labels = np.arange(10) % 3
    leads = [int(by_group(values, labels).of(query)[0].group) for query in range(7)]
    folder = run_folder(train_labels=labels, query_labels=np.array([*leads[:6], -1]), query_split=SPLIT)
    record = json.loads(run_credit(folder, "--json")[1])["splits"]
    assert [(split["right"]["pictures"], split["right"]["right"]) for split in record.values()] == [
        (3, 3),
        (3, 3),
    ]


def test_nothing_is_said_of_own_groups_that_nobody_knows(run_credit, run_folder):
    folder = run_folder(train_groups=np.array(NAMES), query_groups=np.array(["x"] * 7))
    assert json.loads(run_credit(folder, "--json")[1])["splits"]["all"]["right"] is None
    assert "own group" not in run_credit(folder)[1]


def test_the_file_of_names_is_never_overwritten(run_credit, run_folder, written):
    path = written("id,artist\n")
    code, _, err = run_credit(run_folder(), "--by", f"{path}:artist", "--out", path)
    assert code == 2 and "would overwrite" in err


def test_many_groups_are_cut_in_the_table_and_whole_in_json(run_credit, run_folder):
    folder = run_folder(train_prompts=np.array([f"{'a long prompt ' * 9}{name}" for name in NAMES]))
    text = as_text(credit_figures(credited(open_run(folder), "prompt")), rows=2)
    assert "and 1 groups more" in text and max(map(len, text.splitlines()[2:])) < 120
    assert len(json.loads(run_credit(folder, "--by", "prompt", "--json")[1])["splits"]["all"]["groups"]) == 3


def test_similarities_say_what_their_shares_are(run_credit, run_folder):
    folder = run_folder(train_groups=np.array(NAMES))
    (folder / "run.json").write_text(json.dumps({"method": "pixel", "signed": False}))
    assert "pixel measures likeness" in run_credit(folder)[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "keeps neither groups nor labels .* Give --by FILE.csv"),
        (("--by", "group"), "run.* have no groups; they have prompt"),
        (("--by", "artist"), "no column or CSV file 'artist'"),
        (("--by", "labels"), "Did you mean 'label'"),
        (("--by", "missing.csv"), "Could not open .*missing.csv"),
        (("--by", "prompt", "--query", "query-9"), r"no query 'query-9'. Did you mean 'query-\d'.* It has 7"),
        (("--by", "prompt", "--query", "query-1", "--queries", "2"), "expected one of them"),
    ],
)
def test_what_cannot_be_credited_is_refused_in_a_paragraph(
    run_credit, run_folder, tmp_path, monkeypatch, words, expected
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_credit(run_folder(train_prompts=np.array(NAMES)), *words, "--out", "all.csv")
    assert (code, out) == (2, "")
    assert "Traceback" not in err and len(err) < 600
    assert re.search(expected, err.replace("\n", " "))
    assert not (tmp_path / "all.csv").exists()


def test_a_query_is_found_in_another_unicode_form(run_folder, run_credit):
    folder = run_folder(train_groups=np.array(NAMES))
    columns = dict(np.load(folder / "pictures.npz"))
    columns["query_ids"] = np.array(["Cafe\u0301.png", *columns["query_ids"][1:]])
    np.savez(folder / "pictures.npz", **columns)
    code, out, err = run_credit(folder, "--query", "Caf\u00e9.png")
    assert code == 0 and "Cafe\u0301.png" in out, err
