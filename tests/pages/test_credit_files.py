"""Credit in files: CSV with every figure, and JSON-LD that needs no network."""

import csv
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from pyld import jsonld

from headwater.credit.shares import Share, by_group
from headwater.examples import Examples
from toy_credit import NAMES, SPLIT


def test_a_csv_gives_names_and_takes_all_rows(run_credit, run_folder, values, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("id,artist\n" + "".join(f"image-{i},{name}\n" for i, name in enumerate(NAMES)))
    values[5] = -1
    code, out, _ = run_credit(run_folder(), "--by", names, "--out", tmp_path / "all.csv")
    assert code == 0 and "all, 7 queries" in out
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    credit = by_group(values, NAMES)
    assert len(rows) == 21 and list(rows[0]) == ["query", "split", *Share._fields]
    assert [float(row["net"]) for row in rows] == credit.net.ravel().tolist()
    assert {
        row[name] for row in rows[15:18] for name in ("even_low", "even_high", "share", "low", "high")
    } == {""}
    for query, part in enumerate(rows[i : i + 3] for i in range(0, 15, 3)):
        expected = sorted(credit.of(query))
        assert [row["group"] for row in part] == [row.group for row in expected] and part[0][
            "query"
        ] == f"query-{query}"
        assert [[float(row[name]) for name in Share._fields[1:]] for row in part] == [
            list(row[1:]) for row in expected
        ]


@pytest.fixture
def document(run_credit, run_folder, written, tmp_path):
    """The JSON-LD that the command writes for a run with splits, of the queries asked for; names are artists
    with licences."""
    rows = [f"image-{i},{name},{'CC-BY' if i % 2 else 'all rights'}" for i, name in enumerate(NAMES)]

    def make(*words, info=None):
        folder = run_folder(query_split=SPLIT)
        (folder / "run.json").write_text(
            json.dumps({"method": "d-trak", "title": "D-TRAK", "signed": True} | (info or {}))
        )
        path = written("\n".join(["id,artist,licence", *rows]), "who.csv")
        code, _, err = run_credit(folder, "--by", f"{path}:artist", *words, "--out", tmp_path / "out.jsonld")
        assert (code, err) == (0, "")
        return json.loads((tmp_path / "out.jsonld").read_text(), parse_constant=pytest.fail)

    return make


def terms(node):
    """Every key and type of a document below its context; what is JSON by definition is passed over."""
    for key, value in node.items():
        yield key
        if key == "@type":
            yield from [value] if isinstance(value, str) else value
        elif key not in ("@context", "fields"):
            for child in value if isinstance(value, list) else [value]:
                yield from terms(child) if isinstance(child, dict) else ()


def test_json_ld_has_every_picture_with_the_figures_of_credit(document, values):
    values[5] = -1
    record, credit = document(), by_group(values, NAMES)
    assert [picture["identifier"] for picture in record["about"]] == [f"query-{i}" for i in range(7)]
    assert [picture["split"] for picture in record["about"]] == SPLIT.tolist()
    for query, picture in enumerate(record["about"]):
        expected = [
            {key: value for key, value in row._asdict().items() if value == value} for row in credit.of(query)
        ]
        assert picture["contributions"] == [{"@type": "Contribution", **row} for row in expected]
        assert picture["contentHash"] == Examples(np.zeros((1, 8, 8, 1), np.uint8)).hashes[0]
    assert (
        "share" not in record["about"][5]["contributions"][0]
        and "net" in record["about"][5]["contributions"][0]
    )


def test_json_ld_says_what_made_it_and_what_a_share_is_not(document):
    info = {
        "seed": 3,
        "fields": {"damping": 0.1, "k": None, "odd": math.nan},
        "headwater": "0.1.0",
        "started": "2026-01-02T03:04:05+00:00",
    }
    info |= {
        "train": {"fingerprint": "t", "source": "/home/ann/x"},
        "query": {"fingerprint": "q"},
        "models": [{"fingerprint": "m", "path": "/home"}],
    }
    record = document(info=info)
    activity = record["wasGeneratedBy"]
    assert (activity["method"], activity["name"], activity["seed"], activity["startedAtTime"]) == (
        "d-trak",
        "D-TRAK",
        3,
        info["started"],
    )
    assert activity["fields"] == {"damping": 0.1, "k": None, "odd": None}
    assert activity["wasAssociatedWith"]["softwareVersion"] == "0.1.0"
    assert [
        (images["@type"][-1], images["fingerprint"], images.get("count")) for images in activity["used"]
    ] == [
        ("Model", "m", None),
        ("TrainingSet", "t", 10),
        ("Queries", "q", 7),
    ]
    assert (
        record["groupedBy"] == "who.csv:artist"
        and "/home" not in json.dumps(record)
        and "tmp" not in json.dumps(record)
    )
    assert "no legal finding" in record["description"] and "likeness" not in record["description"]
    assert set(document(info={"signed": False})["wasGeneratedBy"]) == {
        "@type",
        "method",
        "name",
        "wasAssociatedWith",
        "used",
    }


def test_json_ld_defines_every_term_itself_and_needs_no_network(document):
    info = {"seed": 0, "started": "2026-01-02T03:04:05+00:00", "headwater": "0", "fields": {}}
    record = document("--also", "licence", info=info)
    context = {
        name: term if isinstance(term, str) else term["@id"]
        for name, term in record["@context"].items()
        if name[0] != "@"
    }
    assert isinstance(record["@context"], dict) and record["@context"]["@version"] == 1.1
    words = set(terms(record)) - {"@context", "@type"}
    assert words <= set(context)
    assert {context[word].split(":")[0] for word in words} == {"schema", "prov", "headwater"}
    assert [context[prefix] for prefix in ("schema", "prov")] == [
        "https://schema.org/",
        "http://www.w3.org/ns/prov#",
    ]
    assert context["headwater"].startswith("urn:")
    assert "basedOn" not in json.dumps(record) and "Derived" not in json.dumps(record)


def test_json_ld_is_expanded_and_compacted_to_itself_by_another_library(document):
    jsonld.set_document_loader(lambda url, options: pytest.fail(f"asked for {url}"))
    record = document(
        "--also", "licence", info={"seed": 0, "fields": {"k": None, "damping": [0.1]}, "headwater": "0"}
    )
    expanded = jsonld.expand(record)
    assert jsonld.compact(expanded, record["@context"]) == record
    shares = [
        share["urn:x-headwater:credit:share"][0]
        for share in expanded[0]["https://schema.org/about"][0]["urn:x-headwater:credit:contribution"]
    ]
    assert {share["@type"] for share in shares} == {"http://www.w3.org/2001/XMLSchema#double"}


def test_a_file_has_the_queries_asked_for_and_all_if_none_are(document):
    assert [picture["identifier"] for picture in document("--query", "query-4")["about"]] == ["query-4"]


def test_another_column_tells_each_groups_distinct_names(run_credit, document, tmp_path):
    second = {
        group["group"]: group["also"]
        for group in document("--also", "licence", "--query", "query-0")["about"][0]["contributions"]
    }
    both = ["CC-BY", "all rights"]
    assert second == {
        group: [{"@type": "PropertyValue", "name": "licence", "value": names}]
        for group, names in (("a", both), ("b", both), ("c", ["all rights"]))
    }
    run_credit(
        tmp_path / "run",
        "--by",
        f"{tmp_path / 'who.csv'}:artist",
        "--also",
        "licence",
        "--out",
        tmp_path / "out.csv",
    )
    with (tmp_path / "out.csv").open(newline="") as file:
        licences = [row["licence"] for row in csv.DictReader(file)]
    assert licences == ["CC-BY; all rights", "CC-BY; all rights", "all rights"] * 7


def test_licences_are_groups_like_any_other(run_credit, document, values, tmp_path):
    document()
    _, out, _ = run_credit(tmp_path / "run", "--by", f"{tmp_path / 'who.csv'}:licence", "--json")
    expected = by_group(values, ["CC-BY" if i % 2 else "all rights" for i in range(10)]).mean([0, 1, 2])
    assert json.loads(out)["splits"]["val"]["groups"] == [row._asdict() for row in expected]


def test_names_that_are_no_text_are_written_without_what_is_not(run_credit, run_folder, tmp_path):
    folder = run_folder(train_groups=np.array([f"a\udc80{name}" for name in NAMES]))
    for name in ("out.csv", "out.JSON-LD"):
        assert run_credit(folder, "--queries", 1, "--out", tmp_path / name)[0] == 0
        assert "a?b" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--out", "shares.txt"),
            "shares.txt ends in '.txt'; expected a file that ends in .csv or in .jsonld",
        ),
        (("--out", "shares"), "shares has no suffix; expected"),
        (("--out", "folder.csv"), "folder.csv is a folder; expected"),
        (
            ("--out", "s.csv", "--also", "licence"),
            "--also licence is given with --by prompt; expected --by FILE.csv:column",
        ),
        (("--also", "licence"), "none is named. Give --out"),
        (("--by", "who.csv:artist", "--also", "license", "--out", "s.csv"), "Did you mean 'licence'"),
        (
            ("--by", "who.csv:artist", "--also", "share", "--out", "s.csv"),
            "has a column of that name already",
        ),
        (("--by", "who.csv", "--also", "licence", "--out", "s.csv"), "several columns of names"),
    ],
)
def test_files_that_cannot_be_are_refused_in_a_paragraph(
    run_credit, run_folder, written, tmp_path, monkeypatch, words, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    written("id,artist,licence\n" + "".join(f"image-{i},x,y\n" for i in range(10)), "who.csv")
    before = {*tmp_path.iterdir()}
    code, out, err = run_credit(
        run_folder(train_prompts=np.array(NAMES)), *(() if "--by" in words else ("--by", "prompt")), *words
    )
    assert (code, out) == (2, "") and "Traceback" not in err and len(err) < 600
    assert re.search(expected, err.replace("\n", " "))
    assert {*tmp_path.iterdir()} == before | {tmp_path / "run"}


def test_nothing_of_it_needs_torch():
    code = "import sys, headwater.pages.credit.files; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
