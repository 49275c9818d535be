"""The tables and figures: measured once, chosen by cross-fitting, and written as they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.attribution.open import Machine
from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import LDS
from headwater.models.train import Recipe
from headwater.retraining.build import Workplace, build
from headwater.retraining.recipe import BankRecipe, DataSource
from papers._shared import bench, pages
from papers._shared.command import run
from papers._shared.exhibit import EXHIBITS, PAPERS, Exhibit
from papers._shared.keeping import RowFile
from papers._shared.line import Line, key_of
from papers._shared.session import Session
from papers.dtrak import table_2, table_7

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def session(tmp_path_factory, smallest):
    """A bank that takes seconds: 30 digits, 6 halves × 2 seeds and 4 to learn from."""
    folder = tmp_path_factory.mktemp("bank") / "tiny"
    recipe = BankRecipe(
        data=DataSource(name="digits", count=30),
        held_out=DataSource(name="digits:val", count=4),
        model=smallest,
        training=Recipe(steps=4, batch=8, checkpoints=2, dropout=0.0, flips=False),
        subsets=6,
        learning=4,
        generated=4,
        sample_steps=4,
        measurements=("simple", "square"),
        outcome_draws=Draws(4, "stratified", seed=5),
    )
    for _ in build(
        folder, recipe, recipe.data.open(), recipe.held_out.open(), Workplace(models=folder / "kept")
    ):
        pass
    return Session(
        bank=open_bank(folder),
        store=FeatureStore(folder / "store"),
        models=folder / "kept",
        machine=Machine("cpu"),
        results=folder / "results",
        timesteps=(1, 2),
    )


def counted(monkeypatch):
    """The lines that are really measured from now on."""
    lines, real = [], bench.measured

    def measured(line, session):
        lines.append(line)
        return real(line, session)

    monkeypatch.setattr(bench, "measured", measured)
    return lines


def test_a_table_from_a_bank_is_measured_once(session, monkeypatch, tmp_path):
    session = replace(session, results=tmp_path, timesteps=(1,), functions=("simple", "square"))
    measured_lines = counted(monkeypatch)
    rows = run(Exhibit("dtrak", "table_1"), session)
    assert [(row["row"], row["split"]) for row in rows] == [
        (name, split)
        for name in ("`simple`", "`square`", "`random`", "*one seed predicting the other*")
        for split in ("val", "gen")
    ]
    assert len(measured_lines) == 4
    square = rows[2]
    assert (
        square["low"] <= square["lds"] <= square["high"]
        and len(square["chosen"]) == 2
        and len(square["all"]) == 18
    )
    assert square["minus"]["row"] == "`simple`" and square["minus"]["mean"] == pytest.approx(
        square["lds"] - rows[0]["lds"], abs=2e-5
    )
    assert square["features_computed"] == 38 and square["fields"]["k"] == 4096 and square["seeds"] == 2
    page = (tmp_path / "tiny" / "table_1.md").read_text()

    again = run(Exhibit("dtrak", "table_1"), session)
    assert (
        len(measured_lines) == 4 and again == rows and (tmp_path / "tiny" / "table_1.md").read_text() == page
    )

    run(Exhibit("dtrak", "table_1"), session, again=["random"])
    assert len(measured_lines) == 5
    # another column: beside the first, not in its place
    run(Exhibit("dtrak", "table_1"), replace(session, timesteps=(2,)))
    assert (
        len(measured_lines) == 7
        and len(json.loads((tmp_path / "tiny" / "table_1.json").read_text())["rows"]) == 12
    )
    assert (
        "| | validation<br>1 timesteps | validation<br>2 timesteps |"
        in (tmp_path / "tiny" / "table_1.md").read_text()
    )


def test_a_killed_table_goes_on_where_it_stopped_and_a_grown_bank_is_measured_again(
    session, monkeypatch, tmp_path
):
    session = replace(session, results=tmp_path, timesteps=(1,), functions=("simple", "square"))

    class Killed(BaseException):
        pass

    real = bench.measured

    def killed(line, session):
        if line.method == "random":
            raise Killed
        return real(line, session)

    monkeypatch.setattr(bench, "measured", killed)
    with pytest.raises(Killed):
        run(Exhibit("dtrak", "table_1"), session)
    monkeypatch.setattr(bench, "measured", real)
    measured_lines = counted(monkeypatch)
    run(Exhibit("dtrak", "table_1"), session)
    assert [line.method for line in measured_lines] == ["random", "ceiling"]
    grown = replace(session.bank, train=session.bank.train.take(np.arange(30)[::-1]))
    assert RowFile(tmp_path / "tiny" / "table_1.json", session.stamp).known
    assert not RowFile(tmp_path / "tiny" / "table_1.json", replace(session, bank=grown).stamp).known


def test_what_another_recipe_has_measured_is_taken_from_there(session, monkeypatch, tmp_path):
    session = replace(session, results=tmp_path, timesteps=(1,))
    measured_lines = counted(monkeypatch)
    rows = run(Exhibit("dtrak", "figure_6"), session)
    assert len(measured_lines) == 6 and {row["x"] for row in rows} == {2, 4, None}
    run(Exhibit("dtrak", "figure_2"), session)
    assert len(measured_lines) == 6
    first, second = ((tmp_path / "tiny" / f"figure_{i}.svg").read_bytes() for i in (2, 6))
    run(Exhibit("dtrak", "figure_6"), session)
    assert first != second == (tmp_path / "tiny" / "figure_6.svg").read_bytes()  # the same bytes each time
    assert b"prefers-color-scheme: dark" in first and b"Generation" in first and b"Validation" not in first


def test_figures_are_cross_fitted(session):
    """Each half prefers the setting that is worthless for the other: the honest figure is 0, the oracle's is
    not."""
    from headwater.evaluate.tune import query_halves

    split = np.array(session.bank.queries.split) == "val"
    first, second = query_halves(split)
    found = {
        (("damping", value),): LDS(
            half.astype(float), lambda half=half: np.tile(half.astype(float), (1000, 1))
        )
        for value, half in ((1.0, first), (2.0, second))
    }
    line = Line(row="", method="trak", swept={"damping": [1.0, 2.0]})
    row = next(bench.figures(line, bench.Result(session.bank, found)))
    assert (row["split"], row["lds"], row["high"]) == ("val", 0, 0)
    assert (
        row["chosen"] == [{"damping": 2.0}, {"damping": 1.0}]
        and max(each["lds"] for each in row["all"]) == 0.5
    )
    shown = list(bench.figures(replace(line, each=True), bench.Result(session.bank, found)))
    assert [(row["lds"], row["all"], row["oracle"]) for row in shown if row["split"] == "val"] == [
        (0.5, [], None)
    ] * 2


def test_a_method_of_paths_is_compared_on_generated_queries_alone(session):
    measuring = bench.Bench(session)
    (row,) = measuring.rows(table_2.gradient("journey-trak", 1), table_2.gradient("d-trak", 1))
    other = measuring.rows(table_2.gradient("d-trak", 1), None)[1]
    assert row["split"] == other["split"] == "gen"
    assert row["minus"]["mean"] == pytest.approx(row["lds"] - other["lds"], abs=2e-5)


def test_an_ensemble_is_the_mean_over_models_of_learning_subsets(session):
    from headwater.attribution.sweep import settings

    of = {size: table_7.ensemble("trak", size, 1) for size in (1, 2)}
    of = {size: replace(line, swept={"damping": [0.1]}) for size, line in of.items()}
    one, two = (
        next(iter(settings(session.experiment(line), line.swept, session.store).values()))
        for line in of.values()
    )
    experiment = session.experiment(of[2])
    second = replace(experiment, models=experiment.models[1:], fields={**experiment.fields, "seed": 1})
    np.testing.assert_allclose(
        two, (one + next(iter(settings(second, of[2].swept, session.store).values()))) / 2, rtol=1e-5
    )
    assert {line.ensemble for line in table_7.lines(session)} == {1, 2, 4, None}  # the bank has four


def test_both_kinds_of_damping_are_swept_from_one_fit_and_agree_with_a_fit_of_their_own(session):
    from headwater.attribution.sweep import settings

    experiment = session.experiment(Line(row="", method="trak", fields={"timesteps": 1}))
    ((key, swept),) = settings(experiment, {"absolute_damping": [0.3]}, session.store).items()
    alone = replace(experiment, fields={**experiment.fields, "absolute_damping": 0.3})
    ((_, expected),) = settings(alone, {}, session.store).items()
    assert key == (("absolute_damping", 0.3),)
    np.testing.assert_allclose(swept, expected, rtol=1e-5)
    unit = experiment.built().fit(experiment.models[0], experiment.train, session.store).gram.mean_square
    ((_, relative),) = settings(experiment, {"damping": [0.3 / unit]}, session.store).items()
    np.testing.assert_allclose(swept, relative, rtol=1e-9)


def row(name, split, column, lds, **more):
    usual = {"low": lds - 0.02, "high": lds + 0.02, "minus": None, "x": None}
    return {"row": name, "split": split, "column": column, "lds": lds, **usual, **more}


def test_a_table_shows_what_its_rows_say():
    rows = [
        row("`a`", "val", "100", 0.565),
        row("`a`", "val", "10", 0.1),
        row("`a`", "gen", "10", -0.0004, minus={"row": "`b`", "mean": 0.1, "low": -0.01, "high": 0.2}),
        row("`b`", "val", "", 0.331, seconds_from_empty_store=5.4),
    ]
    assert pages.table(rows[:3], "steps").splitlines() == [
        "| | validation<br>10 steps | validation<br>100 steps | generation<br>10 steps | generation<br>100 "
        "steps |",
        "|---|---|---|---|---|",
        "| `a` | 10.0 [8.0, 12.0] | 56.5 [54.5, 58.5] | 0.0 [-2.0, 2.0] | – |",
    ]
    assert pages.table(rows).splitlines()[3] == "| `b` | 33.1 [31.1, 35.1] | – | – | – | 5 |"
    words, table = pages.differences(rows)
    assert words.startswith("Minus `b`") and "| `a` | +10.0 [-1.0, 20.0] |" in table


def test_names_beside_curves_move_as_little_as_they_must():
    from papers._shared.drawing import apart

    assert apart([0.0, 0.5, 1.0], 0.1) == pytest.approx([0, 0.5, 1])
    assert apart([0.5, 0.5, 0.9], 0.2) == pytest.approx([0.4, 0.6, 0.9])
    assert apart([0.5, 0.5, 0.6], 0.2) == pytest.approx([1 / 3, 1.6 / 3, 2.2 / 3], abs=1e-9)


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.stem)
def test_every_exhibit_can_be_carried_out(exhibit, session):
    """Its settings are those of methods, no two lines have one place, and it is in the index."""
    number = exhibit.name.split("_")[-1]
    assert exhibit.module.PAPER.endswith(".")
    assert number in exhibit.title.partition(":")[0] or not number.isdigit()
    lines = exhibit.module.lines(replace(session, timesteps=None)) if hasattr(exhibit.module, "lines") else []
    for line in lines:
        assert key_of(line, exhibit.base(line))
    assert len({json.dumps([line.place, line.against, sorted(line.swept)]) for line in lines}) == len(lines)
    assert f"| {exhibit.title} |" in (ROOT / "docs" / "results" / "README.md").read_text()


def test_every_exhibit_is_among_all():
    files = {
        Exhibit(paper, path.stem)
        for paper in ("dtrak", "kfac", "nda")
        for path in (ROOT / "papers" / paper).glob("*.py")
        if not path.stem.startswith("_")
    }
    assert files == set(EXHIBITS) and len(files) == len(EXHIBITS)


def test_every_committed_page_names_the_module_that_made_it():
    """Also pages of banks that are not at hand, whose rows nobody measures again for a new name."""
    pages_of = {
        exhibit: list((ROOT / "docs" / "results").glob(f"*/{exhibit.stem}.md"))
        for exhibit in EXHIBITS
        if exhibit
        not in (Exhibit("dtrak", "figure_15"), Exhibit("dtrak", "figure_20"))  # pictures and a caption alone
    }
    assert sum(map(len, pages_of.values())) > 30
    for exhibit, paths in pages_of.items():
        assert all(exhibit.origin in path.read_text() for path in paths)


def test_rows_measured_before_the_embedder_moved_are_known():
    """The key of a committed row, which holds the embedder's old name."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the example's network is not installed")
    rows = json.loads((ROOT / "docs" / "results" / "digits" / "table_2.json").read_text())["rows"]
    key = next(row["key"] for row in rows if row["row"] == "`clip` (EfficientNet-Lite0), dot")
    line = table_2.similarity("clip", "dot", "papers.efficientnet:EMBEDDER")
    assert key == key_of(line, table_2.base(line))


def test_pages_of_influence_functions(session, tmp_path):
    session = replace(session, results=tmp_path, timesteps=(1,), pictures=2)
    for number in (1, 13, 15, 16, 17):
        run(Exhibit("kfac", f"figure_{number}"), session)
        page = (tmp_path / "tiny" / f"kfac_figure_{number}.md").read_text()
        assert f"Made by `papers/kfac/figure_{number}.py`" in page


def test_pictures_with_their_sources(session, tmp_path):
    session = replace(session, results=tmp_path, timesteps=(1,))
    for name in ("figure_15", "figure_20"):
        run(Exhibit("dtrak", name), session)
        assert f"]({name}.svg)" in (tmp_path / "tiny" / f"{name}.md").read_text()
        assert "<image" in (tmp_path / "tiny" / f"{name}.svg").read_text()
    assert "D-TRAK" in (tmp_path / "tiny" / "figure_15.html").read_text()
    pages.write_index(PAPERS, tmp_path)
    assert "[tiny](tiny/figure_15.md)" in (tmp_path / "README.md").read_text()
