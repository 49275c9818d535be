"""The tables and figures: measured once, chosen by cross-fitting, and written as they are."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
import keeping
import pages
from headwater.attribution.open import Machine
from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import LDS
from headwater.models.train import Recipe
from headwater.retraining.build import build
from headwater.retraining.recipe import BankRecipe, DataSource
from headwater.retraining.workplace import Workplace

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def given(tmp_path_factory, smallest):
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
    for _ in build(folder, recipe, recipe.data.open(), recipe.held_out.open(), Workplace(models=folder / "kept")):
        pass
    return engine.Given(
        bank=open_bank(folder),
        store=FeatureStore(folder / "store"),
        models=folder / "kept",
        machine=Machine("cpu", 1.0),
        results=folder / "results",
        timesteps=(1, 2),
    )


def counted(monkeypatch):
    """The lines that are really measured from now on."""
    asked, real = [], engine.measured

    def measured(line, given):
        asked.append(line)
        return real(line, given)

    monkeypatch.setattr(engine, "measured", measured)
    return asked


def test_a_table_from_a_bank_is_measured_once(given, monkeypatch, tmp_path):
    table_1 = importlib.import_module("table_1")
    monkeypatch.setattr(table_1, "FUNCTIONS", ("simple", "square"))
    given = replace(given, results=tmp_path, timesteps=(1,))
    asked = counted(monkeypatch)
    rows = engine.run("table_1", given)
    assert [(row["row"], row["split"]) for row in rows] == [
        (name, split)
        for name in ("`simple`", "`square`", "`random`", "*one seed predicting the other*")
        for split in ("val", "gen")
    ]
    assert len(asked) == 4
    square = rows[2]
    assert square["low"] <= square["lds"] <= square["high"] and len(square["chosen"]) == 2 and len(square["all"]) == 18
    assert square["minus"]["row"] == "`simple`" and square["minus"]["mean"] == pytest.approx(
        square["lds"] - rows[0]["lds"], abs=2e-5
    )
    assert square["features_computed"] == 38 and square["fields"]["k"] == 4096 and square["seeds"] == 2
    page = (tmp_path / "tiny" / "table_1.md").read_text()

    again = engine.run("table_1", given)
    assert len(asked) == 4 and again == rows and (tmp_path / "tiny" / "table_1.md").read_text() == page

    engine.run("table_1", given, anew=["random"])
    assert len(asked) == 5
    engine.run("table_1", replace(given, timesteps=(2,)))  # another column: beside the first, not in its place
    assert len(asked) == 7 and len(json.loads((tmp_path / "tiny" / "table_1.json").read_text())["rows"]) == 12
    assert "| | validation<br>1 timesteps | validation<br>2 timesteps |" in (tmp_path / "tiny" / "table_1.md").read_text()


def test_a_killed_table_goes_on_where_it_stopped_and_a_grown_bank_is_measured_again(given, monkeypatch, tmp_path):
    table_1 = importlib.import_module("table_1")
    monkeypatch.setattr(table_1, "FUNCTIONS", ("simple", "square"))
    given = replace(given, results=tmp_path, timesteps=(1,))

    class Killed(BaseException):
        pass

    real = engine.measured

    def killed(line, given):
        if line.method == "random":
            raise Killed
        return real(line, given)

    monkeypatch.setattr(engine, "measured", killed)
    with pytest.raises(Killed):
        engine.run("table_1", given)
    monkeypatch.setattr(engine, "measured", real)
    asked = counted(monkeypatch)
    engine.run("table_1", given)
    assert [line.method for line in asked] == ["random", "ceiling"]
    grown = replace(given.bank, train=given.bank.train.take(np.arange(30)[::-1]))
    assert keeping.Kept(tmp_path / "tiny" / "table_1.json", given.stamp).known
    assert not keeping.Kept(tmp_path / "tiny" / "table_1.json", replace(given, bank=grown).stamp).known


def test_what_another_recipe_has_measured_is_taken_from_there(given, monkeypatch, tmp_path):
    given = replace(given, results=tmp_path, timesteps=(1,))
    asked = counted(monkeypatch)
    rows = engine.run("figure_6", given)
    assert len(asked) == 6 and {row["x"] for row in rows} == {2, 4, None}
    engine.run("figure_2", given)
    assert len(asked) == 6
    first, second = ((tmp_path / "tiny" / f"figure_{i}.svg").read_bytes() for i in (2, 6))
    engine.run("figure_6", given)
    assert first != second == (tmp_path / "tiny" / "figure_6.svg").read_bytes()  # the same bytes each time
    assert b"prefers-color-scheme: dark" in first and b"Generation" in first and b"Validation" not in first


def test_figures_are_cross_fitted(given):
    """Each half prefers the setting that is worthless for the other: the honest figure is 0, the oracle's is not."""
    from headwater.evaluate.tune import query_halves

    split = np.array(given.bank.queries.split) == "val"
    first, second = query_halves(split)
    found = {
        (("damping", value),): LDS(half.astype(float), lambda half=half: np.tile(half.astype(float), (1000, 1)))
        for value, half in ((1.0, first), (2.0, second))
    }
    line = engine.Line(row="", method="trak", swept={"damping": [1.0, 2.0]})
    row = next(engine.figures(line, engine.Found(given.bank, found)))
    assert (row["split"], row["lds"], row["high"]) == ("val", 0, 0)
    assert row["chosen"] == [{"damping": 2.0}, {"damping": 1.0}] and max(each["lds"] for each in row["all"]) == 0.5
    shown = list(engine.figures(replace(line, each=True), engine.Found(given.bank, found)))
    assert [(row["lds"], row["all"], row["oracle"]) for row in shown if row["split"] == "val"] == [(0.5, [], None)] * 2


def test_a_method_of_paths_is_compared_on_generated_queries_alone(given):
    table_2 = importlib.import_module("table_2")
    bench = engine.Bench(given)
    (row,) = bench.rows(table_2.gradient("journey-trak", 1), table_2.gradient("d-trak", 1))
    other = bench.rows(table_2.gradient("d-trak", 1), None)[1]
    assert row["split"] == other["split"] == "gen"
    assert row["minus"]["mean"] == pytest.approx(row["lds"] - other["lds"], abs=2e-5)


def test_an_ensemble_is_the_mean_over_models_of_learning_subsets(given):
    from headwater.attribution.sweep import settings

    table_7 = importlib.import_module("table_7")
    of = {size: table_7.ensemble("trak", size, 1) for size in (1, 2)}
    of = {size: replace(line, swept={"damping": [0.1]}) for size, line in of.items()}
    one, two = (next(iter(settings(given.run(line), line.swept, given.store).values())) for line in of.values())
    run = given.run(of[2])
    second = replace(run, models=run.models[1:], fields={**run.fields, "seed": 1})
    np.testing.assert_allclose(two, (one + next(iter(settings(second, of[2].swept, given.store).values()))) / 2, rtol=1e-5)
    assert {line.ensemble for line in table_7.lines(given)} == {1, 2, 4, None}  # the bank has four


def test_both_kinds_of_damping_are_swept_from_one_fit_and_agree_with_a_fit_of_their_own(given):
    from headwater.attribution.sweep import settings

    run = given.run(engine.Line(row="", method="trak", fields={"timesteps": 1}))
    ((key, swept),) = settings(run, {"absolute_damping": [0.3]}, given.store).items()
    alone = replace(run, fields={**run.fields, "absolute_damping": 0.3})
    ((_, expected),) = settings(alone, {}, given.store).items()
    assert key == (("absolute_damping", 0.3),)
    np.testing.assert_allclose(swept, expected, rtol=1e-5)
    unit = run.built().fit(run.models[0], run.train, given.store).gram.mean_square
    ((_, relative),) = settings(run, {"damping": [0.3 / unit]}, given.store).items()
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
        "| | validation<br>10 steps | validation<br>100 steps | generation<br>10 steps | generation<br>100 steps |",
        "|---|---|---|---|---|",
        "| `a` | 10.0 [8.0, 12.0] | 56.5 [54.5, 58.5] | 0.0 [-2.0, 2.0] | – |",
    ]
    assert pages.table(rows).splitlines()[3] == "| `b` | 33.1 [31.1, 35.1] | – | – | – | 5 |"
    words, table = pages.differences(rows)
    assert words.startswith("Minus `b`") and "| `a` | +10.0 [-1.0, 20.0] |" in table


def test_names_beside_curves_move_as_little_as_they_must():
    from drawing import apart

    assert apart([0.0, 0.5, 1.0], 0.1) == pytest.approx([0, 0.5, 1])
    assert apart([0.5, 0.5, 0.9], 0.2) == pytest.approx([0.4, 0.6, 0.9])
    assert apart([0.5, 0.5, 0.6], 0.2) == pytest.approx([1 / 3, 1.6 / 3, 2.2 / 3], abs=1e-9)


@pytest.mark.parametrize("name", engine.RECIPES)
def test_every_recipe_can_be_carried_out(name, given):
    """Its settings are those of methods, no two lines have one place, and it is in the index."""
    recipe = importlib.import_module(name)
    title, number = pages.title_and_caption(recipe)[0], name.split("_")[-1]
    assert recipe.PAPER.endswith(".") and (number in title.partition(":")[0] or not number.isdigit())
    lines = recipe.lines(replace(given, timesteps=None)) if hasattr(recipe, "lines") else []
    for line in lines:
        assert engine.key_of(line, engine.base_of(recipe, line))
    assert len({json.dumps([line.place, line.against, sorted(line.swept)]) for line in lines}) == len(lines)
    assert f"| {pages.title_and_caption(recipe)[0]} |" in (ROOT / "docs" / "results" / "README.md").read_text()


def test_every_recipe_is_among_all():
    files = [path.stem for path in (ROOT / "recipes").glob("*.py") if path.stem.startswith(("table_", "figure_", "kfac_", "nda_"))]
    assert sorted(files) == sorted(engine.RECIPES)


def test_pages_of_influence_functions(given, tmp_path, monkeypatch):
    given = replace(given, results=tmp_path, timesteps=(1,))
    monkeypatch.setattr(importlib.import_module("kfac_figure_17"), "PICTURES", 2)
    for name in ("kfac_figure_1", "kfac_figure_13", "kfac_figure_15", "kfac_figure_16", "kfac_figure_17"):
        engine.run(name, given)
        assert f"recipes/{name}.py" in (tmp_path / "tiny" / f"{name}.md").read_text()


def test_pictures_with_their_sources(given, tmp_path):
    given = replace(given, results=tmp_path, timesteps=(1,))
    for name in ("figure_15", "figure_20"):
        engine.run(name, given)
        assert f"]({name}.svg)" in (tmp_path / "tiny" / f"{name}.md").read_text()
        assert "<image" in (tmp_path / "tiny" / f"{name}.svg").read_text()
    assert "D-TRAK" in (tmp_path / "tiny" / "figure_15.html").read_text()
    pages.index(
        [[importlib.import_module(name) for name in paper] for paper in (engine.D_TRAK, engine.K_FAC, engine.NDA)], tmp_path
    )
    assert "[tiny](tiny/figure_15.md)" in (tmp_path / "README.md").read_text()
