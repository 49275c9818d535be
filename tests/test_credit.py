"""Credit by group: sums as a slow loop makes them, shares that sum to 1, intervals that hold what they should."""

import csv
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from pyld import jsonld
from scipy import stats

from headwater import seeds
from headwater.credit.groups import column, default, from_csv
from headwater.credit.shares import RESAMPLES, Share, by_group
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.run import open_run
from headwater.scores import Scores

NAMES = ["b", "a", "c", "a", "b", "a", "b", "b", "a", "b"]


@pytest.fixture
def values():
    return seeds.stream(0, "test credit").standard_normal((7, 10), dtype=np.float32)


def slowly(values, names):
    """The equations in plain loops, float64."""
    groups = sorted(set(names))
    net, share = np.zeros((len(values), len(groups))), np.zeros((len(values), len(groups)))
    for q, row in enumerate(values.astype(np.float64).tolist()):
        positive = sum(max(score, 0.0) for score in row)
        for g, group in enumerate(groups):
            mine = [score for score, name in zip(row, names, strict=True) if name == group]
            net[q, g] = sum(mine)
            share[q, g] = sum(max(score, 0.0) for score in mine) / positive
    return groups, net, share


def test_net_and_share_are_those_of_a_slow_loop(values):
    credit = by_group(values, NAMES)
    groups, net, share = slowly(values, NAMES)
    assert list(credit.groups) == groups
    np.testing.assert_allclose(credit.net, net, rtol=1e-12)
    np.testing.assert_allclose(credit.share, share, rtol=1e-12)
    assert credit.images.tolist() == [4, 5, 1]
    assert credit.even.tolist() == [0.4, 0.5, 0.1]


def test_blocks_change_nothing(values, monkeypatch):
    whole = by_group(values, NAMES)
    monkeypatch.setattr("headwater.credit.shares.BLOCK", 25)
    parts = by_group(values, NAMES)
    np.testing.assert_array_equal(whole.net, parts.net)
    np.testing.assert_array_equal(whole.share, parts.share)
    assert whole.of(3) == parts.of(3)


def test_the_shares_of_a_query_sum_to_1_and_nets_to_the_sum_of_scores(values):
    credit = by_group(values, NAMES)
    np.testing.assert_allclose(credit.share.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(credit.net.sum(axis=1), values.sum(axis=1, dtype=np.float64), rtol=1e-6, atol=1e-12)
    assert sum(each.share for each in credit.mean()) == pytest.approx(1)
    assert credit.even.sum() == pytest.approx(1)


def test_the_order_of_images_and_queries_changes_nothing(values):
    images, queries = seeds.stream(0, "order").permutation(10), seeds.stream(1, "order").permutation(7)
    one, other = by_group(values, NAMES), by_group(values[queries][:, images], [NAMES[i] for i in images])
    np.testing.assert_allclose(other.share, one.share[queries], rtol=1e-12)
    for a, b in [(one.of(int(queries[2])), other.of(2)), (one.mean(), other.mean())]:
        assert [each.group for each in a] == [each.group for each in b]
        np.testing.assert_allclose([each[1:] for each in a], [each[1:] for each in b], rtol=1e-9)


def test_groups_are_told_with_the_largest_share_first(values):
    shares = [each.share for each in by_group(values, NAMES).mean()]
    assert shares == sorted(shares, reverse=True)


def test_even_is_the_mean_share_over_all_ways_to_deal_out_the_names(values):
    """What a share is read against, whatever the scores: over draws of the names, shares average to |g|/n."""
    draw = seeds.stream(0, "deal")
    dealt = np.array([by_group(values, draw.permutation(NAMES)).share.mean(axis=0) for _ in range(2000)])
    error = dealt.std(axis=0) / math.sqrt(len(dealt))
    assert (np.abs(dealt.mean(axis=0) - [0.4, 0.5, 0.1]) < 4 * error).all()


def test_chance_is_a_slow_loop_over_the_same_deals(values):
    """Shares of all images, sorted, dealt to groups of the same sizes in their alphabetical order."""
    portion = np.maximum(values.astype(np.float64), 0)
    mine = sorted((portion / portion.sum(axis=1, keepdims=True)).mean(axis=0).tolist())
    stream, dealt = seeds.stream(0, "credit", "dealt"), []
    for _ in range(RESAMPLES):
        a, b, c = np.split(stream.permuted(mine), [4, 9])
        dealt.append([sum(a.tolist()), sum(b.tolist()), sum(c.tolist())])
    low, high = np.percentile(dealt, [2.5, 97.5], axis=0)
    told = {each.group: each for each in by_group(values, NAMES).mean()}
    np.testing.assert_allclose([told[g].even_low for g in "abc"], low, rtol=1e-9)
    np.testing.assert_allclose([told[g].even_high for g in "abc"], high, rtol=1e-9)


def test_chance_has_the_spread_of_drawing_without_putting_back():
    """The variance of a sum of k of n numbers is k(1 − k/n)S²; near enough to normal here."""
    values = seeds.stream(0, "spread").exponential(size=(1, 1000)).astype(np.float32)
    (each, _) = sorted(by_group(values, ["a"] * 300 + ["b"] * 700).of(0))
    spread = math.sqrt(300 * 0.7 * (values[0] / values.sum()).var(ddof=1))
    assert [each.even_low, each.even_high] == pytest.approx([0.3 - 1.96 * spread, 0.3 + 1.96 * spread], abs=0.1 * spread)


def test_names_dealt_at_random_are_beyond_chance_one_time_in_twenty():
    """A strong image for all queries lifts its group in every one: the interval over queries knows nothing of that, chance does."""
    values = seeds.stream(0, "deals").exponential(size=(50, 300)).astype(np.float32)
    values *= seeds.stream(1, "deals").exponential(size=300).astype(np.float32) ** 2
    found = [
        each
        for deal in range(40)
        for each in by_group(values, seeds.stream(deal, "names").permutation(np.repeat(np.arange(5), 60))).mean()
    ]
    beyond = np.mean([not each.even_low <= each.share <= each.even_high for each in found])
    off = np.mean([not each.low <= each.even <= each.high for each in found])
    assert 0.02 <= beyond <= 0.08
    assert off > 0.7


def test_a_query_without_positive_score_has_no_shares_and_is_left_out_of_the_mean(values):
    values[2] = -np.abs(values[2])
    credit = by_group(values, NAMES)
    assert np.isnan(credit.share[2]).all()
    assert np.isfinite(credit.net).all()
    rest = by_group(np.delete(values, 2, axis=0), NAMES)
    assert [each.share for each in credit.mean()] == pytest.approx([each.share for each in rest.mean()])
    assert all(math.isnan(figure) for each in credit.of(2) for figure in (each.even_low, each.share, each.low, each.high))
    assert all(math.isnan(each.share) for each in credit.mean([2]))


def test_one_query_has_no_interval_over_queries(values):
    assert all(math.isnan(each.low) and each.share > 0 for each in by_group(values, NAMES).mean([1]))
    with pytest.raises(OptionError, match="no queries"):
        by_group(values, NAMES).mean([])


def test_the_mean_over_some_queries_is_theirs_alone(values):
    some, alone = by_group(values, NAMES).mean([1, 4, 5]), by_group(values[[1, 4, 5]], NAMES).mean()
    assert some == alone


def test_resampling_images_is_a_slow_loop_over_the_same_draws(values):
    """Each image of a resample is drawn from the images of its own group, sorted by what they gain."""
    groups = sorted(set(NAMES))
    gains = {g: sorted(max(float(v), 0.0) for v, name in zip(values[4], NAMES, strict=True) if name == g) for g in groups}
    stream, drawn = seeds.stream(0, "bootstrap", "credit", "images"), []
    for _ in range(RESAMPLES):
        uniform = stream.random(len(NAMES)).tolist()
        sums = []
        for g in groups:
            mine, uniform = uniform[: len(gains[g])], uniform[len(gains[g]) :]
            sums.append(sum(gains[g][int(u * len(gains[g]))] for u in mine))
        if sum(sums):
            drawn.append([each / sum(sums) for each in sums])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    told = {each.group: each for each in by_group(values, NAMES).of(4)}
    np.testing.assert_allclose([told[g].low for g in groups], low, rtol=1e-9)
    np.testing.assert_allclose([told[g].high for g in groups], high, rtol=1e-9)


def test_both_intervals_are_scipys_percentile_bootstrap():
    """scipy resamples several samples each within itself, as images within their groups; up to the luck of 1,000 draws."""
    values = seeds.stream(0, "scipy").exponential(size=(80, 60)).astype(np.float32)
    credit = by_group(values, ["a"] * 40 + ["b"] * 20)
    options = {"n_resamples": 4000, "method": "percentile", "vectorized": True}
    own = values[3].astype(np.float64)
    found = stats.bootstrap(
        (own[:40], own[40:]),
        lambda a, b, axis: a.sum(axis) / (a.sum(axis) + b.sum(axis)),
        **options,
        rng=seeds.stream(0, "images"),
    )
    mine = next(each for each in credit.of(3) if each.group == "a")
    assert (mine.low, mine.high) == pytest.approx(found.confidence_interval, abs=0.01)
    found = stats.bootstrap((credit.share[:, 0],), np.mean, **options, rng=seeds.stream(0, "queries"))
    mine = next(each for each in credit.mean() if each.group == "a")
    assert (mine.low, mine.high) == pytest.approx(found.confidence_interval, abs=0.002)


def test_the_interval_over_queries_holds_the_expected_share_in_19_of_20_worlds():
    """Gamma scores of one image each in three groups have Dirichlet shares: their expectation is known."""
    concentration, held = np.array([1.0, 2.0, 3.0]), []
    for world in range(300):
        values = seeds.stream(world, "world").standard_gamma(concentration, size=(60, 3)).astype(np.float32)
        held += [each.low <= concentration[int(each.group)] / 6 <= each.high for each in by_group(values, [0, 1, 2]).mean()]
    assert 0.92 <= np.mean(held) <= 0.97


def test_many_queries_at_once_are_told_as_each_by_itself(values, monkeypatch):
    """They share random numbers, not order: rows keep their place, whatever fits into a block."""
    values[2] = -1
    credit, ticks = by_group(values, NAMES), []
    alone = [credit.of(query) for query in (4, 2, 0, 6)]
    for block in (2**22, RESAMPLES * 3 * 2, 25):
        monkeypatch.setattr("headwater.credit.shares.BLOCK", block)
        ticks.clear()
        together = list(credit.each([4, 2, 0, 6], lambda done, total: ticks.append((done, total))))
        np.testing.assert_equal([[tuple(each) for each in shares] for shares in together], [[*map(tuple, each)] for each in alone])
        assert ticks[-1] == (4, 4)
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_group_whose_share_rests_on_one_image_has_a_wide_interval():
    values = np.ones((1, 40), np.float32)
    values[0, 0], values[0, 1:20] = 20, 0
    few, many = by_group(values, ["few"] * 20 + ["many"] * 20).of(0)
    assert few.share == many.share == 0.5
    assert few.low == 0 and few.high > 0.7
    even = by_group(np.ones((1, 40), np.float32), ["a"] * 20 + ["b"] * 20).of(0)
    assert [each.low for each in even] == [each.high for each in even] == [0.5, 0.5]


def test_noise_gives_every_group_its_even_share():
    """The trap of a sum over many: scores without information still give a big group a big share."""
    values = seeds.stream(0, "noise").standard_normal((200, 1000), dtype=np.float32)
    big, small = by_group(values, ["big"] * 900 + ["small"] * 100).mean()
    assert big.share == pytest.approx(0.9, abs=0.01) and small.share == pytest.approx(0.1, abs=0.01)
    assert big.low <= 0.9 <= big.high


def test_scores_know_their_credit_by_words_or_numbers(values):
    scores = Scores(values, tuple("abcdefg"), tuple(map(str, range(10))), np.ones(10, np.float32))
    assert scores.credit(NAMES).mean() == by_group(values, NAMES).mean()
    assert scores.credit(np.arange(10) % 3).groups == ("0", "1", "2")
    with pytest.raises(DataError, match="9 names of groups for 10 training images"):
        scores.credit(NAMES[:9])


def test_columns_are_found_by_name():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    examples = Examples(images, labels=np.array([4, -1, 4]), groups=("x", "y", "x"))
    assert column(examples, "label") == ("4", "none", "4")
    assert column(examples, "group") == ("x", "y", "x")
    assert default(examples) == "group" and default(Examples(images)) is None
    with pytest.raises(DataError, match="have no prompts; they have group and label"):
        column(examples, "prompt")
    with pytest.raises(OptionError, match="Did you mean 'label'"):
        column(examples, "lable")


# ---- a CSV file of names --------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    def write(text, name="names.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    return write


def test_a_csv_names_images_in_any_order_and_may_know_others(written):
    path = written('\ufeffid,artist\nc,Ann\na,"Bo, Jr"\nother,Cy\nb,Ann\n\n')
    assert from_csv(path, ("a", "b", "c")) == ("Bo, Jr", "Ann", "Ann")


def test_one_of_several_columns_is_picked_by_name(written):
    path = written("artist,id,licence\nAnn,a,CC\nBo,b,none\n")
    assert from_csv(f"{path}:licence", ("a", "b")) == ("CC", "none")
    with pytest.raises(OptionError, match=r"several columns of names: `artist`, `licence`. Say which: .*names.csv:artist"):
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


# ---- the command -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path, values):
    """A run folder as `attribute` writes it, with whatever columns are given."""

    def write(**columns):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        np.save(folder / "scores.npy", values)
        np.save(folder / "self.npy", np.ones(10, np.float32))
        kept = {
            "train_images": np.zeros((10, 8, 8, 1), np.uint8),
            "train_rows": np.arange(10),
            "train_ids": np.array([f"image-{i}" for i in range(10)]),
            "query_images": np.zeros((7, 8, 8, 1), np.uint8),
            "query_ids": np.array([f"query-{i}" for i in range(7)]),
        }
        np.savez(folder / "pictures.npz", **kept, **columns)
        (folder / "run.json").write_text(json.dumps({"method": "d-trak", "title": "D-TRAK", "signed": True}))
        return folder

    return write


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `headwater credit` in this process: (exit code, stdout, stderr)."""
    from headwater.cli import commands as cli

    def run(*words):
        monkeypatch.setattr("sys.argv", ["headwater", "credit", *map(str, words)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return code, out, err

    return run


SPLIT = np.array(["val"] * 3 + ["gen"] * 4)


def test_the_command_prints_a_table_for_each_split_sorted_by_share(command, run_folder, values):
    code, out, err = command(run_folder(train_groups=np.array(NAMES), query_split=SPLIT))
    assert (code, err) == (0, "")
    tables = out.split("\n\n")[1:]
    assert [table.split(",")[0] for table in tables] == ["val", "gen"]
    for table, rows in zip(tables, (range(3), range(3, 7)), strict=True):
        expected = [each.group for each in by_group(values[rows], NAMES).mean()]
        assert [line[0] for line in table.strip().splitlines()[1:]] == expected


def test_json_has_every_figure_and_no_nan(command, run_folder, values, tmp_path):
    values[5] = -1
    folder = run_folder(train_labels=np.arange(10) % 3, train_groups=np.array(NAMES), query_split=SPLIT)
    _, out, _ = command(folder, "--by", "label", "--query", "query-5", "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    credit = by_group(values, np.arange(10) % 3)
    assert found["by"] == "label" and found["images"] == 10 and found["signed"] is True
    assert found["splits"]["gen"]["without_shares"] == 1
    assert found["splits"]["val"]["groups"] == [each._asdict() for each in credit.mean(range(3))]
    (query,) = found["queries"]
    assert query["query"] == "query-5" and {each["share"] for each in query["groups"]} == {None}
    assert sorted(each["net"] for each in query["groups"]) == [-4, -3, -3]
    _, out, _ = command(folder, "--query", "query-5")
    assert "query-5 (gen)" in out and "nan" not in out and "1 of these queries have no score above 0" in out


def test_the_first_queries_can_be_had_one_by_one(command, run_folder, values):
    _, out, _ = command(run_folder(train_groups=np.array(NAMES)), "--queries", 2, "--json")
    first, second = json.loads(out)["queries"]
    assert (first["query"], second["query"]) == ("query-0", "query-1")
    assert second["groups"] == [each._asdict() for each in by_group(values, NAMES).of(1)]


def test_a_csv_gives_names_and_takes_all_rows(command, run_folder, values, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("id,artist\n" + "".join(f"image-{i},{name}\n" for i, name in enumerate(NAMES)))
    values[5] = -1
    code, out, _ = command(run_folder(), "--by", names, "--out", tmp_path / "all.csv")
    assert code == 0 and "all, 7 queries" in out
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    credit = by_group(values, NAMES)
    assert len(rows) == 21 and list(rows[0]) == ["query", "split", *Share._fields]
    assert [float(row["net"]) for row in rows] == credit.net.ravel().tolist()
    assert {row[name] for row in rows[15:18] for name in ("even_low", "even_high", "share", "low", "high")} == {""}
    for query, some in enumerate(rows[i : i + 3] for i in range(0, 15, 3)):
        told = sorted(credit.of(query))
        assert [row["group"] for row in some] == [each.group for each in told] and some[0]["query"] == f"query-{query}"
        assert [[float(row[name]) for name in Share._fields[1:]] for row in some] == [list(each[1:]) for each in told]


def test_the_command_tells_how_often_a_pictures_own_group_leads(command, run_folder, values):
    """By groups of the queries, by labels (−1 is none), and by a CSV file in so far as it has the queries' groups."""
    leads = [by_group(values, NAMES).of(query)[0].group for query in range(7)]
    own = [*leads[:4], "nobody", "a" if leads[5] != "a" else "b", leads[6]]
    folder = run_folder(train_groups=np.array(NAMES), query_groups=np.array(own), query_labels=np.full(7, -1))
    found = json.loads(command(folder, "--json")[1])["splits"]["all"]["right"]
    assert (found["pictures"], found["right"]) == (6, 5)
    assert found["even"] == pytest.approx(np.mean([NAMES.count(name) / 10 for name in own if name != "nobody"]))
    code, out, _ = command(folder)
    assert code == 0 and "own group's in 5 of 6 pictures: 83.3 %, 95 % interval 43.6 to 97.0 %" in out and "random scores" in out


def test_labels_of_queries_are_their_groups_where_images_go_by_label(command, run_folder, values):
    labels = np.arange(10) % 3
    leads = [int(by_group(values, labels).of(query)[0].group) for query in range(7)]
    folder = run_folder(train_labels=labels, query_labels=np.array([*leads[:6], -1]), query_split=SPLIT)
    found = json.loads(command(folder, "--json")[1])["splits"]
    assert [(each["right"]["pictures"], each["right"]["right"]) for each in found.values()] == [(3, 3), (3, 3)]


def test_nothing_is_said_of_own_groups_that_nobody_knows(command, run_folder):
    folder = run_folder(train_groups=np.array(NAMES), query_groups=np.array(["x"] * 7))
    assert json.loads(command(folder, "--json")[1])["splits"]["all"]["right"] is None
    assert "own group" not in command(folder)[1]


def test_the_file_of_names_is_never_overwritten(command, run_folder, written):
    path = written("id,artist\n")
    code, _, err = command(run_folder(), "--by", f"{path}:artist", "--out", path)
    assert code == 2 and "would overwrite" in err


def test_many_groups_are_cut_in_the_table_and_whole_in_json(command, run_folder, monkeypatch):
    monkeypatch.setattr("headwater.pages.credit.table.SHOWN", 2)
    folder = run_folder(train_prompts=np.array([f"{'a long prompt ' * 9}{name}" for name in NAMES]))
    _, out, _ = command(folder, "--by", "prompt")
    assert "and 1 groups more" in out and max(map(len, out.splitlines()[2:])) < 120
    assert len(json.loads(command(folder, "--by", "prompt", "--json")[1])["splits"]["all"]["groups"]) == 3


def test_similarities_say_what_their_shares_are(command, run_folder):
    folder = run_folder(train_groups=np.array(NAMES))
    (folder / "run.json").write_text(json.dumps({"method": "pixel", "signed": False}))
    assert "pixel measures likeness" in command(folder)[1]


# ---- files to take away ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def document(command, run_folder, written, tmp_path):
    """The JSON-LD that the command writes for a run with splits, of the queries asked for; names are artists with licences."""
    rows = [f"image-{i},{name},{'CC-BY' if i % 2 else 'all rights'}" for i, name in enumerate(NAMES)]

    def make(*words, info=None):
        folder = run_folder(query_split=SPLIT)
        (folder / "run.json").write_text(json.dumps({"method": "d-trak", "title": "D-TRAK", "signed": True} | (info or {})))
        path = written("\n".join(["id,artist,licence", *rows]), "who.csv")
        code, _, err = command(folder, "--by", f"{path}:artist", *words, "--out", tmp_path / "out.jsonld")
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
            for each in value if isinstance(value, list) else [value]:
                yield from terms(each) if isinstance(each, dict) else ()


def test_json_ld_has_every_picture_with_the_figures_of_credit(document, values):
    values[5] = -1
    found, credit = document(), by_group(values, NAMES)
    assert [each["identifier"] for each in found["about"]] == [f"query-{i}" for i in range(7)]
    assert [each["split"] for each in found["about"]] == SPLIT.tolist()
    for query, picture in enumerate(found["about"]):
        told = [{key: value for key, value in each._asdict().items() if value == value} for each in credit.of(query)]
        assert picture["contributions"] == [{"@type": "Contribution", **each} for each in told]
        assert picture["contentHash"] == Examples(np.zeros((1, 8, 8, 1), np.uint8)).hashes[0]
    assert "share" not in found["about"][5]["contributions"][0] and "net" in found["about"][5]["contributions"][0]


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
    found = document(info=info)
    made = found["wasGeneratedBy"]
    assert (made["method"], made["name"], made["seed"], made["startedAtTime"]) == ("d-trak", "D-TRAK", 3, info["started"])
    assert made["fields"] == {"damping": 0.1, "k": None, "odd": None}
    assert made["wasAssociatedWith"]["softwareVersion"] == "0.1.0"
    assert [(each["@type"][-1], each["fingerprint"], each.get("count")) for each in made["used"]] == [
        ("Model", "m", None),
        ("TrainingSet", "t", 10),
        ("Queries", "q", 7),
    ]
    assert found["groupedBy"] == "who.csv:artist" and "/home" not in json.dumps(found) and "tmp" not in json.dumps(found)
    assert "no legal finding" in found["description"] and "likeness" not in found["description"]
    assert set(document(info={"signed": False})["wasGeneratedBy"]) == {"@type", "method", "name", "wasAssociatedWith", "used"}


def test_json_ld_defines_every_term_itself_and_needs_no_network(document):
    info = {"seed": 0, "started": "2026-01-02T03:04:05+00:00", "headwater": "0", "fields": {}}
    found = document("--also", "licence", info=info)
    context = {name: each if isinstance(each, str) else each["@id"] for name, each in found["@context"].items() if name[0] != "@"}
    assert isinstance(found["@context"], dict) and found["@context"]["@version"] == 1.1
    words = set(terms(found)) - {"@context", "@type"}
    assert words <= set(context)
    assert {context[word].split(":")[0] for word in words} == {"schema", "prov", "headwater"}
    assert [context[prefix] for prefix in ("schema", "prov")] == ["https://schema.org/", "http://www.w3.org/ns/prov#"]
    assert context["headwater"].startswith("urn:")
    assert "basedOn" not in json.dumps(found) and "Derived" not in json.dumps(found)


def test_json_ld_is_expanded_and_compacted_to_itself_by_another_library(document):
    jsonld.set_document_loader(lambda url, options: pytest.fail(f"asked for {url}"))
    found = document("--also", "licence", info={"seed": 0, "fields": {"k": None, "damping": [0.1]}, "headwater": "0"})
    expanded = jsonld.expand(found)
    assert jsonld.compact(expanded, found["@context"]) == found
    shares = [
        each["urn:x-headwater:credit:share"][0]
        for each in expanded[0]["https://schema.org/about"][0]["urn:x-headwater:credit:contribution"]
    ]
    assert {each["@type"] for each in shares} == {"http://www.w3.org/2001/XMLSchema#double"}


def test_a_file_has_the_queries_asked_for_and_all_if_none_are(document):
    assert [each["identifier"] for each in document("--query", "query-4")["about"]] == ["query-4"]


def test_another_column_tells_each_groups_distinct_names(command, document, tmp_path):
    told = {
        each["group"]: each["also"] for each in document("--also", "licence", "--query", "query-0")["about"][0]["contributions"]
    }
    both = ["CC-BY", "all rights"]
    assert told == {
        group: [{"@type": "PropertyValue", "name": "licence", "value": names}]
        for group, names in (("a", both), ("b", both), ("c", ["all rights"]))
    }
    command(tmp_path / "run", "--by", f"{tmp_path / 'who.csv'}:artist", "--also", "licence", "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        told = [row["licence"] for row in csv.DictReader(file)]
    assert told == ["CC-BY; all rights", "CC-BY; all rights", "all rights"] * 7


def test_licences_are_groups_like_any_other(command, document, values, tmp_path):
    document()
    _, out, _ = command(tmp_path / "run", "--by", f"{tmp_path / 'who.csv'}:licence", "--json")
    expected = by_group(values, ["CC-BY" if i % 2 else "all rights" for i in range(10)]).mean([0, 1, 2])
    assert json.loads(out)["splits"]["val"]["groups"] == [each._asdict() for each in expected]


def test_names_that_are_no_text_are_written_without_what_is_not(command, run_folder, tmp_path):
    folder = run_folder(train_groups=np.array([f"a\udc80{name}" for name in NAMES]))
    for name in ("out.csv", "out.JSON-LD"):
        assert command(folder, "--queries", 1, "--out", tmp_path / name)[0] == 0
        assert "a?b" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--out", "shares.txt"), "shares.txt ends in '.txt'; expected a file that ends in .csv or in .jsonld"),
        (("--out", "shares"), "shares has no suffix; expected"),
        (("--out", "folder.csv"), "folder.csv is a folder; expected"),
        (("--out", "s.csv", "--also", "licence"), "--also licence is given with --by prompt; expected --by FILE.csv:column"),
        (("--also", "licence"), "none is named. Give --out"),
        (("--by", "who.csv:artist", "--also", "license", "--out", "s.csv"), "Did you mean 'licence'"),
        (("--by", "who.csv:artist", "--also", "share", "--out", "s.csv"), "has a column of that name already"),
        (("--by", "who.csv", "--also", "licence", "--out", "s.csv"), "several columns of names"),
    ],
)
def test_files_that_cannot_be_are_refused_in_a_paragraph(command, run_folder, written, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    written("id,artist,licence\n" + "".join(f"image-{i},x,y\n" for i in range(10)), "who.csv")
    before = {*tmp_path.iterdir()}
    code, out, err = command(run_folder(train_prompts=np.array(NAMES)), *(() if "--by" in words else ("--by", "prompt")), *words)
    assert (code, out) == (2, "") and "Traceback" not in err and len(err) < 600
    assert re.search(expected, err.replace("\n", " "))
    assert {*tmp_path.iterdir()} == before | {tmp_path / "run"}


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
def test_what_cannot_be_credited_is_refused_in_a_paragraph(command, run_folder, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(run_folder(train_prompts=np.array(NAMES)), *words, "--out", "all.csv")
    assert (code, out) == (2, "")
    assert "Traceback" not in err and len(err) < 600
    assert re.search(expected, err.replace("\n", " "))
    assert not (tmp_path / "all.csv").exists()


def test_a_run_keeps_the_groups_and_prompts_of_its_images(pictures, tmp_path):
    from headwater.attribution.experiment import Experiment, run
    from headwater.disk.store import FeatureStore

    train = pictures(6, classes=2, groups=tuple("xyxyxy"), prompts=tuple("abcdef"))
    queries = pictures(2, seed=1, groups=("y", "z"), prompts=("q", ""))
    run(Experiment("pixel", {}, train, queries), tmp_path / "run", FeatureStore(tmp_path / "store"))
    opened = open_run(tmp_path / "run")
    assert opened.groups == train.groups and opened.prompts == train.prompts
    assert opened.queries.groups == ("y", "z") and opened.queries.prompts == queries.prompts
    assert column(opened, "group") == train.groups and default(opened) == "group"
    run(Experiment("pixel", {}, pictures(6), pictures(2, seed=1)), tmp_path / "bare", FeatureStore(tmp_path / "store"))
    bare = open_run(tmp_path / "bare")
    assert bare.groups is None and bare.queries.groups is None and bare.queries.prompts is None


def test_groups_that_do_not_fit_the_training_images_are_refused(run_folder):
    with pytest.raises(DataError, match="9 `train_groups` and 10 `train_ids`"):
        open_run(run_folder(train_groups=np.array(NAMES[:9])))


def test_nothing_of_it_needs_torch():
    code = "import sys, headwater.credit_files; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
