"""Counterfactual evaluation of a micro bank, against every step done by hand; its page."""

import json
from dataclasses import replace

import numpy as np
import pytest

from headwater.attribution.experiment import Experiment, run
from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.diffusion.sample import sample
from headwater.disk.npz import read_examples
from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.evaluate.counterfactual import without
from headwater.evaluate.removals import read_figures
from headwater.examples import Examples, to_uint8
from headwater.families.embedding import Embedder
from headwater.models import cache as keeping
from headwater.models import loading, unet
from headwater.models.train import Recipe, train
from headwater.pages.counterfactual import as_text, page, verdicts
from headwater.retraining.build import build
from headwater.retraining.counterfactual import RANDOM, collect_results, plan_removals, remove
from headwater.retraining.outcomes import outcomes
from headwater.retraining.recipe import BankRecipe, DataSource
from headwater.retraining.workplace import Workplace
from headwater.run import open_run
from headwater.workers import Here

N, GENERATED, K = 12, 5, 3
JOBS = 21 + 4  # of 24 removals, the others repeat one of these; and each picture as it was
HERE = Workplace(Here())


@pytest.fixture(scope="module")
def recipe(smallest):
    return BankRecipe(
        data=DataSource(name="train.npz"),
        held_out=DataSource(name="held-out.npz"),
        model=smallest,
        training=Recipe(epochs=2, batch=4, learning_rate=1e-2, checkpoints=1),
        subsets=1,
        seeds=1,
        generated=GENERATED,
        sample_steps=5,
        outcome_draws=Draws(4, "stratified", seed=77),
    )


@pytest.fixture(scope="module")
def bank(recipe, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "bank"
    list(build(folder, recipe, pictures(N), pictures(2, seed=1), HERE))
    return open_bank(folder)


@pytest.fixture(scope="module")
def runs(bank, tmp_path_factory):
    """A run of `pixel` on the bank's queries, and one of `random` on its generated ones, reversed."""
    folder = tmp_path_factory.mktemp("runs")
    generated = bank.queries.take(np.arange(GENERATED + 1, 1, -1))
    for name, queries, fields in (("pixel", bank.queries, {}), ("random", generated, {"seed": 1})):
        run(Experiment(name, fields, bank.train, queries), folder / name, FeatureStore(folder / "store"))
    return [
        replace(open_run(folder / "pixel"), name="Pixels"),
        replace(open_run(folder / "random"), name="Other random"),
    ]


@pytest.fixture(scope="module")
def finished(bank, runs, tmp_path_factory):
    """The removals, their folder, the steps that `remove` counted, and the figures."""
    folder = tmp_path_factory.mktemp("removal")
    removals = plan_removals(bank, runs, 4, [K, 1])
    steps = list(remove(removals, folder, HERE))
    embed = Embedder(
        "means",
        lambda images: np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3)), np.ones(len(images))], 1),
    )
    return removals, folder, steps, collect_results(removals, folder, HERE, embed)


def test_every_effect_is_that_of_a_retraining_by_hand(bank, recipe, runs, finished):
    removals, _, _, figures = finished
    query = removals.queries[2]
    number = query - 2  # two held-out images come first
    scores = runs[0].scores.values[query]
    keep = np.ones(N, bool)
    keep[np.argsort(-scores, kind="stable")[:K]] = False
    full = loading.load(bank.folder / "model")
    steps = recipe.training.total(N)
    assert steps == 6
    model = train(unet.Network(recipe.model), bank.train, replace(recipe.training, steps=steps), 0, keep=keep)
    before, after = (
        sample(net, range(number, number + 1), 0, steps=5).pictures.numpy() for net in (full, model)
    )
    assert np.array_equal(to_uint8(before)[0], bank.queries.images[query])
    effects = figures.methods["Pixels"].removed[K]
    assert effects["l2"].values[2] == pytest.approx(float(np.linalg.norm(before - after)), rel=1e-5)
    losses = [
        outcomes(net, bank.queries.take([query]), ("elbo",), recipe.outcome_draws) for net in (full, model)
    ]
    for name in ("simple", "elbo"):
        assert effects[name].values[2] == pytest.approx(
            float(losses[1][name][0] - losses[0][name][0]), rel=1e-3, abs=1e-6
        )
    a, b = (np.array([to_uint8(side).mean(), to_uint8(side).std(), 1.0]) for side in (before, after))
    assert effects["cosine"].values[2] == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-5
    )


def test_random_removal_is_there_and_the_others_are_compared_with_it(finished):
    _, _, steps, figures = finished
    assert steps[-1] == (JOBS, JOBS) and list(figures.methods) == [RANDOM, "Pixels", "Other random"]
    assert figures.embedder == "means" and figures.removed == [K, 1] and len(figures.queries) == 4
    for effect in ("l2", "cosine", "simple", "elbo"):
        control, pixels = (figures.methods[name].removed[K][effect].values for name in (RANDOM, "Pixels"))
        against = figures.methods["Pixels"].removed[K][effect].against_random
        assert against.difference.mean == pytest.approx((pixels - control).mean())
        assert against.above == (pixels > control).sum()


def test_the_file_holds_the_figures_and_reading_it_gives_them_back(finished, tmp_path):
    _, folder, _, figures = finished
    record = json.loads((folder / "counterfactual.json").read_text())
    assert record == figures.as_json() == read_figures(folder).as_json()
    assert ",".join(record) == "bank,train,queries,removed,embedder,steps,sampler,seed,methods"
    pixels, control = (record["methods"][name] for name in ("Pixels", RANDOM))
    assert pixels.keys() == {"signed", "removed"} and pixels["removed"].keys() == {"3", "1"}
    effect = pixels["removed"]["3"]["l2"]
    assert list(effect) == ["each", "quartiles", "against_random"] and len(effect["each"]) == 4
    assert list(effect["quartiles"]) == ["low", "median", "high"]
    assert list(effect["against_random"]) == ["mean", "low", "high", "p", "above"]
    assert "against_random" not in control["removed"]["3"]["l2"]
    for text, fault in (("{", "Expecting"), ("3", "not iterable"), ('{"bank": "b"}', "it has no 'train'")):
        (tmp_path / "counterfactual.json").write_text(text)
        with pytest.raises(DataError, match=fault):
            read_figures(tmp_path)


def test_the_queries_are_generated_ones_that_every_run_has_in_whatever_order(bank, runs, finished):
    removals = finished[0]
    assert len(set(removals.queries)) == 4 and all(bank.queries.split[q] == "gen" for q in removals.queries)
    place = {content: row for row, content in enumerate(runs[1].queries.hashes)}
    for row, query in enumerate(removals.queries):
        expected = runs[1].scores.values[place[bank.queries.hashes[query]]]
        np.testing.assert_array_equal(removals.scores["Other random"][row], expected)
    with pytest.raises(DataError, match="share 5 of the bank's generated queries; expected at least 6"):
        plan_removals(bank, runs, 6, [K])


def test_a_stopped_run_goes_on_and_a_finished_one_trains_nothing(bank, runs, finished, tmp_path, monkeypatch):
    removals, folder, *_ = finished
    first = remove(removals, tmp_path, HERE)
    assert [next(first) for _ in range(4)] == [(0, JOBS), (1, JOBS), (2, JOBS), (3, JOBS)]
    first.close()
    assert next(remove(removals, tmp_path, HERE)) == (3, JOBS)
    part = sorted((folder / "parts").glob("*.npz"))[0]
    content = part.read_bytes()
    part.write_bytes(content[:-30])  # damaged: done again
    assert list(remove(removals, folder, HERE)) == [(JOBS - 1, JOBS), (JOBS, JOBS)]
    assert part.read_bytes() == content
    monkeypatch.setattr(keeping, "train", lambda *_, **__: pytest.fail("trained"))
    assert list(remove(removals, folder, HERE)) == [(JOBS, JOBS)]


def test_the_page_shows_every_picture_and_the_table_every_figure(finished):
    _, folder, _, figures = finished
    path = page(folder)
    text = path.read_text()
    assert path == folder / "report.html" and text.startswith("<!doctype html>")
    assert text.count('class="again"') == 4 and text.count("<figure") == 4 * 7
    assert "http://" not in text and "https://" not in text and "<script" not in text
    for name in ("Pixels", "Other random", RANDOM, "under means"):
        assert name in text
    words = as_text(figures).splitlines()
    assert sum(line.startswith("Pixels") for line in words) == 8  # four effects, two counts
    assert len(verdicts(figures)) == 2


def test_hostile_names_are_escaped(finished, tmp_path):
    _, folder, *_ = finished
    text = (folder / "counterfactual.json").read_text().replace("Pixels", "<script>alert(1)</script>")
    (tmp_path / "counterfactual.json").write_text(text)
    pictures = dict(np.load(folder / "pictures.npz"))
    pictures = {
        name.replace("Pixels", "<script>alert(1)</script>"): values for name, values in pictures.items()
    }
    np.savez(tmp_path / "pictures.npz", **pictures)
    assert "<script" not in page(tmp_path).read_text()


def test_a_run_of_other_training_images_is_refused(bank, runs, pictures, tmp_path):
    run(
        Experiment("pixel", {}, pictures(7), bank.queries), tmp_path / "run", FeatureStore(tmp_path / "store")
    )
    with pytest.raises(DataError, match="7 training images; the bank has 12"):
        plan_removals(bank, [open_run(tmp_path / "run")], 4, [K])


def test_a_conditional_model_makes_its_pictures_of_their_classes(recipe, pictures, tmp_path):
    training = Examples(pictures(N).images, labels=np.arange(N) % 3)
    held_out = Examples(pictures(2, seed=1).images, labels=np.array([0, 1]))
    conditional = replace(recipe, model=dict(recipe.model) | {"num_class_embeds": 3})
    list(build(tmp_path / "bank", conditional, training, held_out, HERE))
    bank = open_bank(tmp_path / "bank")
    assert read_examples(tmp_path / "bank" / "queries.npz").labels.tolist() == [0, 1, 0, 1, 2, 0, 1]
    removals = plan_removals(bank, [], 5, [1])
    list(remove(removals, tmp_path / "removal", HERE))
    collect_results(removals, tmp_path / "removal", HERE)
    before = np.load(tmp_path / "removal" / "pictures.npz")["before"]
    np.testing.assert_array_equal(before, bank.queries.images[removals.queries])


def test_of_the_removed_none_is_weaker_than_one_that_stays():
    values = np.random.Generator(np.random.Philox(3)).normal(size=50).astype(np.float32)
    mask = without(values, 20)
    assert (~mask).sum() == 20 and values[~mask].min() >= values[mask].max()
