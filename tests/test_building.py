"""Building a micro bank: killed, gone on with, compared with every model trained here by hand.

The first build has a worker process of its own, which imports torch for seconds; it is the only one.
"""

import json
import shutil
from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch

from headwater import building
from headwater.bank import array, open_bank
from headwater.building import BINS, BankRecipe, build, outcomes
from headwater.core import Examples, to_uint8
from headwater.diffusion.draws import Draws
from headwater.diffusion.sample import sample
from headwater.errors import DataError, OptionError, StorageError
from headwater.models import unet
from headwater.models.train import Recipe, train

SUBSETS, SEEDS, N, HELD_OUT, GENERATED = 3, 2, 12, 2, 2
JOBS = (SUBSETS + 1) * SEEDS


@pytest.fixture(scope="module")
def recipe(smallest):
    return BankRecipe(
        model=smallest,
        training=Recipe(steps=2, batch=4, learning_rate=1e-2, checkpoints=2),
        subsets=SUBSETS,
        seeds=SEEDS,
        generated=GENERATED,
        outcome_draws=Draws(20, "stratified", seed=77),
    )


@pytest.fixture(scope="module")
def sides(pictures):
    """Training images and held-out images."""
    return pictures(N), pictures(HELD_OUT, seed=1)


class Here(Executor):
    """A pool of processes that is this process."""

    def __init__(self, *_, **__):
        pass

    def submit(self, job, *arguments):
        future = Future()
        future.set_result(job(*arguments))
        return future


@pytest.fixture(scope="module")
def built(recipe, sides, tmp_path_factory):
    """A bank whose build was stopped after three models and gone on with, and what the two builds said."""
    folder = tmp_path_factory.mktemp("bank") / "bank"
    first = build(folder, recipe, *sides)
    said = [next(first) for _ in range(4)]
    first.close()
    between = open_bank(folder).done()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "ProcessPoolExecutor", Here)
        again = list(build(folder, recipe, *sides))
    return folder, said, between, again


@pytest.fixture
def copy(built, tmp_path):
    """The finished bank, to be changed."""
    return shutil.copytree(built[0], tmp_path / "bank")


def kept(folder, name):
    """The outcomes of that name as they lie on disk."""
    return array(folder / ("outcomes.npy" if name == "simple" else f"outcomes/{name}.npy"))


@pytest.fixture(scope="module")
def by_hand(recipe, sides, built):
    """Outcomes of model (subset, seed), trained here; subset −1 is all the data."""
    bank = open_bank(built[0])

    def measured(subset, seed):
        keep = None if subset < 0 else bank.subsets[subset]
        model = train(unet.Network(recipe.model), sides[0], recipe.training, seed, keep=keep)
        return outcomes(model, bank.queries, recipe.outcome_draws)

    return {(subset, seed): measured(subset, seed) for subset in range(-1, SUBSETS) for seed in range(SEEDS)}


def test_a_build_counts_its_jobs_and_goes_on_where_it_stopped(built):
    _, said, between, again = built
    assert said == [(0, JOBS), (1, JOBS), (2, JOBS), (3, JOBS)]
    assert 2 <= between.sum() < SUBSETS * SEEDS  # two subsets and the model of all data
    assert again[0][0] >= 3 and again[-1] == (JOBS, JOBS) and [done for done, _ in again] == list(range(again[0][0], JOBS + 1))


def test_every_outcome_is_that_of_a_model_trained_by_hand(built, by_hand):
    bank = open_bank(built[0])
    full = array(built[0] / "full.npy")
    for (subset, seed), expected in by_hand.items():
        if subset < 0:
            np.testing.assert_array_equal(full[seed], expected["simple"])
        else:
            for name, values in expected.items():
                np.testing.assert_array_equal(kept(built[0], name)[subset, seed], values)
    assert bank.done().all() and bank.seeds() == [0, 1] and bank.rows() == [0, 1, 2]


def test_shapes_and_types_are_those_of_the_contract(built):
    bank, q = open_bank(built[0]), HELD_OUT + GENERATED
    assert bank.outcomes().shape == bank.outcomes("elbo").shape == (SUBSETS, SEEDS, q)
    assert bank.outcomes("per-timestep").shape == (SUBSETS, SEEDS, q, BINS)
    assert (bank.outcomes().dtype, bank.outcomes("per-timestep").dtype) == (np.float32, np.float16)
    assert bank.queries.split == ("val",) * HELD_OUT + ("gen",) * GENERATED
    assert not list((built[0] / "parts").glob("*.npz"))


def test_subsets_are_distinct_exact_halves_that_a_larger_bank_begins_with(built, recipe, sides, tmp_path):
    subsets = open_bank(built[0]).subsets
    assert subsets.dtype == bool and subsets.shape == (SUBSETS, N) and (subsets.sum(1) == N // 2).all()
    assert len({row.tobytes() for row in subsets}) == SUBSETS
    larger = BankRecipe(**vars(recipe) | {"subsets": 9})
    next(build(tmp_path / "larger", larger, *sides))
    assert np.array_equal(open_bank(tmp_path / "larger").subsets[:SUBSETS], subsets)


def test_the_model_is_that_of_seed_0_on_all_data_and_the_generated_queries_are_its_pictures(built, recipe, sides):
    folder = built[0]
    expected = train(unet.Network(recipe.model), sides[0], recipe.training, 0)
    model = unet.load(folder / "model")
    assert model.fingerprint == expected.fingerprint == unet.load(folder / "checkpoints" / "step-2").fingerprint
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-1", "step-2"]
    queries = open_bank(folder).queries
    assert np.array_equal(queries.images[:HELD_OUT], sides[1].images)
    assert np.array_equal(queries.images[HELD_OUT:], to_uint8(sample(model, range(GENERATED), 0).pictures.numpy()))


def test_outcomes_are_the_mean_loss_over_draws_that_all_models_share(built, recipe):
    model, queries = unet.load(built[0] / "model"), open_bank(built[0]).queries
    draw = recipe.outcome_draws.of(queries, slice(None), model.schedule, torch.zeros(()))
    with torch.no_grad():
        rows = zip(draw.x_t, draw.t, draw.noise, strict=True)
        losses = [[((model.predict(x[None], t[None])[0] - e) ** 2).mean() for x, t, e in zip(*row, strict=True)] for row in rows]
    losses = np.array(losses)
    found = outcomes(model, queries, recipe.outcome_draws)
    np.testing.assert_allclose(found["simple"], losses.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["per-timestep"], losses, rtol=2e-3)  # 20 draws, 20 bins; float16
    one_by_one = outcomes(model, queries, recipe.outcome_draws, batch=1)
    np.testing.assert_allclose(one_by_one["simple"], found["simple"], rtol=1e-5)


def test_outcomes_that_a_kill_left_uncollected_are_collected_without_training(copy, recipe, sides):
    expected = {name: kept(copy, name) for name in ("simple", "elbo", "per-timestep")}
    np.savez(copy / "parts" / "1-0.npz", **{name: values[1, 0] for name, values in expected.items()})
    (copy / "parts" / ".2-0.npz.99.part").write_bytes(b"half")
    outcome = expected["simple"].copy()
    outcome[1, 0] = np.nan
    np.save(copy / "outcomes.npy", outcome)
    assert not open_bank(copy).done().all()
    assert list(build(copy, recipe, *sides)) == [(JOBS, JOBS)]
    for name, values in expected.items():
        np.testing.assert_array_equal(kept(copy, name), values)


def test_a_second_build_of_the_same_bank_is_refused_while_the_first_is_at_work(copy, recipe, sides):
    first = build(copy, recipe, *sides)
    next(first)
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    with pytest.raises(StorageError, match=r"Another process is at work in .*bank"):
        next(build(copy, recipe, *sides))
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before
    first.close()
    assert next(build(copy, recipe, *sides)) == (JOBS, JOBS)


def test_the_model_of_all_data_is_measured_without_training_it_a_second_time(copy, recipe, sides, monkeypatch):
    expected = array(copy / "full.npy")
    np.save(copy / "full.npy", np.concatenate([np.full_like(expected[:1], np.nan), expected[1:]]))

    def trains(*_, **__):
        raise AssertionError("a model is trained")

    monkeypatch.setattr(building, "train", trains)
    monkeypatch.setattr(building, "ProcessPoolExecutor", Here)
    assert list(build(copy, recipe, *sides)) == [(JOBS - 1, JOBS), (JOBS, JOBS)]
    np.testing.assert_array_equal(array(copy / "full.npy"), expected)


def test_a_bank_whose_queries_were_not_written_yet_makes_them_from_the_model_that_is_there(copy, recipe, sides):
    queries, model = (copy / "queries.npz").read_bytes(), unet.load(copy / "model").fingerprint
    (copy / "queries.npz").unlink()
    assert next(build(copy, recipe, *sides)) == (0, JOBS)
    assert (copy / "queries.npz").read_bytes() == queries and unet.load(copy / "model").fingerprint == model


def test_a_bank_killed_while_its_model_was_saved_trains_it_again(copy, recipe, sides):
    fingerprint = unet.load(copy / "model").fingerprint
    (copy / "queries.npz").unlink()
    shutil.rmtree(copy / "model" / "unet")
    assert next(build(copy, recipe, *sides)) == (0, JOBS)
    assert unet.load(copy / "model").fingerprint == fingerprint


def test_a_finished_bank_is_left_as_it_is(copy, recipe, sides):
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    assert list(build(copy, recipe, *sides)) == [(JOBS, JOBS)]
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("change", [{"subsets": 4}, {"part": 0.25}, {"training": Recipe(steps=3)}, {"sample_seed": 1}], ids=str)
def test_another_recipe_in_the_same_folder_is_refused(built, recipe, sides, change):
    with pytest.raises(OptionError, match=r"another recipe.*new folder"):
        next(build(built[0], BankRecipe(**vars(recipe) | change), *sides))


def test_other_training_images_in_the_same_folder_are_refused(built, recipe, sides, pictures):
    with pytest.raises(OptionError, match="another train"):
        next(build(built[0], recipe, pictures(N, seed=5), sides[1]))


def test_other_held_out_images_in_the_same_folder_are_refused(built, recipe, sides, pictures):
    with pytest.raises(OptionError, match="another"):
        next(build(built[0], recipe, sides[0], pictures(HELD_OUT, seed=5)))


def test_a_damaged_bank_is_told(copy, recipe, sides):
    (copy / "bank.json").write_text('{"recipe": ')
    with pytest.raises(DataError, match=r"bank\.json"):
        next(build(copy, recipe, *sides))


def test_a_damaged_outcome_file_is_told_or_made_anew(copy, recipe, sides):
    (copy / "parts" / "1-0.npz").write_bytes(b"PK\x03\x04 cut short")
    try:
        assert next(build(copy, recipe, *sides))[1] == JOBS
    except DataError as error:
        assert "1-0.npz" in str(error)


def test_draws_that_do_not_fill_the_bins_are_refused_before_any_training(recipe):
    with pytest.raises(OptionError, match=str(BINS)):
        BankRecipe(**vars(recipe) | {"outcome_draws": Draws(7)})


def test_a_conditional_bank_gives_its_generated_queries_labels_that_the_model_has(recipe, sides, tmp_path):
    model = dict(recipe.model) | {"num_class_embeds": 3}
    labelled = [Examples(side.images, labels=np.arange(len(side)) % 3) for side in sides]
    next(build(tmp_path / "bank", BankRecipe(**vars(recipe) | {"model": model}), *labelled))
    labels = open_bank(tmp_path / "bank").queries.labels
    assert labels is not None and labels.min() >= 0 and labels.max() < 3


def test_the_recipe_is_kept_readable(built, recipe):
    info = json.loads((built[0] / "bank.json").read_text())
    assert info["recipe"] == recipe.fields() and info["recipe"]["training"]["steps"] == 2
    assert set(info["versions"]) == {"torch", "diffusers", "numpy"}
