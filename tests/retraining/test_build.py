"""A micro bank: stopped, continued, grown, damaged, compared with models trained by hand.

The first build has a worker process of its own, which imports torch for seconds; the others are done in this
process.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.diffusion.sample import sample
from headwater.disk.npy import read_npy
from headwater.errors import DataError, OptionError, StorageError
from headwater.examples import Examples, to_uint8
from headwater.models import cache as keeping
from headwater.models import loading, unet
from headwater.models.train import Recipe, train
from headwater.retraining.build import build
from headwater.retraining.jobs import training_of
from headwater.retraining.outcomes import BINS, outcomes
from headwater.retraining.recipe import BankRecipe, DataSource, from_fields
from headwater.retraining.workplace import Workplace
from headwater.workers import Here, Pool

SUBSETS, SEEDS, N, HELD_OUT, GENERATED = 3, 2, 12, 2, 2
JOBS = (SUBSETS + 1) * SEEDS


@pytest.fixture(scope="module")
def recipe(smallest):
    return BankRecipe(
        data=DataSource(name="train.npz"),
        held_out=DataSource(name="held-out.npz"),
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


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Where the models of the first build are kept."""
    return tmp_path_factory.mktemp("models")


HERE = Workplace(Here())  # keeps no model


@pytest.fixture(scope="module")
def built(recipe, sides, models, tmp_path_factory):
    """A bank whose build was stopped after three models and gone on with, and what the two builds said."""
    folder = tmp_path_factory.mktemp("bank") / "bank"
    first = build(folder, recipe, *sides, Workplace(Pool(1), models=models))
    said = [next(first) for _ in range(4)]
    first.close()
    between = open_bank(folder).done()
    again = list(build(folder, recipe, *sides, Workplace(Here(), models=models)))
    return folder, said, between, again


def forbid_training(monkeypatch):
    def trains(*_, **__):
        raise AssertionError("a model is trained")

    monkeypatch.setattr(keeping, "train", trains)
    monkeypatch.setattr("headwater.retraining.build.train", trains)


@pytest.fixture
def copy(built, tmp_path):
    """The finished bank, to be changed."""
    return shutil.copytree(built[0], tmp_path / "bank")


def saved(folder, name):
    """The outcomes of that name on disk."""
    return read_npy(folder / ("outcomes.npy" if name == "simple" else f"outcomes/{name}.npy"))


@pytest.fixture(scope="module")
def by_hand(recipe, sides, built):
    """Outcomes of model (subset, seed), trained here; subset −1 is all the data."""
    bank = open_bank(built[0])

    def measured(subset, seed):
        keep = None if subset < 0 else bank.subsets[subset]
        model = train(unet.Network(recipe.model), sides[0], recipe.training, seed, keep=keep)
        return outcomes(model, bank.queries, recipe.measurements, recipe.outcome_draws)

    return {(subset, seed): measured(subset, seed) for subset in range(-1, SUBSETS) for seed in range(SEEDS)}


def test_a_build_counts_its_jobs_and_goes_on_where_it_stopped(built):
    _, said, between, again = built
    assert said == [(0, JOBS), (1, JOBS), (2, JOBS), (3, JOBS)]
    assert 2 <= between.sum() < SUBSETS * SEEDS  # two subsets and the model of all data
    assert (
        again[0][0] >= 3
        and again[-1] == (JOBS, JOBS)
        and [count for count, _ in again] == list(range(again[0][0], JOBS + 1))
    )


def test_every_outcome_is_that_of_a_model_trained_by_hand(built, by_hand):
    bank = open_bank(built[0])
    full = read_npy(built[0] / "full.npy")
    for (subset, seed), expected in by_hand.items():
        if subset < 0:
            np.testing.assert_array_equal(full[seed], expected["simple"])
        else:
            for name, values in expected.items():
                np.testing.assert_array_equal(saved(built[0], name)[subset, seed], values)
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
    larger = replace(recipe, subsets=9)
    next(build(tmp_path / "larger", larger, *sides, HERE))
    assert np.array_equal(open_bank(tmp_path / "larger").subsets[:SUBSETS], subsets)


def test_the_model_is_that_of_seed_0_on_all_data_and_the_generated_queries_are_its_pictures(
    built, recipe, sides
):
    folder = built[0]
    expected = train(unet.Network(recipe.model), sides[0], recipe.training, 0)
    model = loading.load(folder / "model")
    assert (
        model.fingerprint
        == expected.fingerprint
        == loading.load(folder / "checkpoints" / "step-2").fingerprint
    )
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-1", "step-2"]
    queries = open_bank(folder).queries
    assert np.array_equal(queries.images[:HELD_OUT], sides[1].images)
    assert np.array_equal(
        queries.images[HELD_OUT:], to_uint8(sample(model, range(GENERATED), 0).pictures.numpy())
    )


def test_outcomes_are_the_mean_loss_over_draws_that_all_models_share(built, recipe):
    model, queries = loading.load(built[0] / "model"), open_bank(built[0]).queries
    draw = recipe.outcome_draws.of(queries, slice(None), model.schedule, torch.zeros(()))
    with torch.no_grad():
        rows = zip(draw.x_t, draw.t, draw.noise, strict=True)
        losses = [
            [((model.predict(x[None], t[None])[0] - e) ** 2).mean() for x, t, e in zip(*row, strict=True)]
            for row in rows
        ]
    losses = np.array(losses)
    measured = outcomes(model, queries, recipe.measurements, recipe.outcome_draws)
    np.testing.assert_allclose(measured["simple"], losses.mean(1), rtol=1e-5)
    np.testing.assert_allclose(measured["per-timestep"], losses, rtol=2e-3)  # 20 draws, 20 bins; float16
    few = outcomes(model, queries, recipe.measurements, recipe.outcome_draws, rows=7)
    np.testing.assert_allclose(few["simple"], measured["simple"], rtol=1e-5)


def test_outcomes_that_a_kill_left_uncollected_are_collected_without_training(copy, recipe, sides):
    expected = {name: saved(copy, name) for name in ("simple", "elbo", "per-timestep")}
    np.savez(copy / "parts" / "1_0.npz", **{name: values[1, 0] for name, values in expected.items()})
    for name in ("parts/.2_0.npz.99.part", "outcomes/.elbo.npy.99.part", ".bank.json.99.part"):
        (copy / name).write_bytes(b"half")
    outcome = expected["simple"].copy()
    outcome[1, 0] = np.nan
    np.save(copy / "outcomes.npy", outcome)
    (copy / "outcomes" / "checks.npy").unlink()  # as a kill would leave it
    assert not open_bank(copy).done().all()
    assert list(build(copy, recipe, *sides, HERE)) == [(JOBS, JOBS)] and not list(copy.rglob("*.part"))
    for name, values in expected.items():
        np.testing.assert_array_equal(saved(copy, name), values)


def test_a_second_build_of_the_same_bank_is_refused_while_the_first_is_at_work(copy, recipe, sides):
    first = build(copy, recipe, *sides, HERE)
    next(first)
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    with pytest.raises(StorageError, match=r"Another process is at work in .*bank"):
        next(build(copy, recipe, *sides, HERE))
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before
    first.close()
    assert next(build(copy, recipe, *sides, HERE)) == (JOBS, JOBS)


def test_the_model_of_all_data_is_measured_without_training_it_a_second_time(
    copy, recipe, sides, monkeypatch
):
    expected = read_npy(copy / "full.npy")
    np.save(copy / "full.npy", np.concatenate([np.full_like(expected[:1], np.nan), expected[1:]]))
    (copy / "outcomes" / "checks.npy").unlink()
    forbid_training(monkeypatch)
    assert list(build(copy, recipe, *sides, HERE)) == [(JOBS - 1, JOBS), (JOBS, JOBS)]
    np.testing.assert_array_equal(read_npy(copy / "full.npy"), expected)


def test_a_bank_without_pictures_makes_them_anew_and_keeps_its_outcomes(copy, recipe, sides, monkeypatch):
    """A bank can be given away without the pictures: data, model and recipe bring them back."""
    before = {name: (copy / name).read_bytes() for name in ("train.npz", "queries.npz")}
    for name in before:
        (copy / name).unlink()
    forbid_training(monkeypatch)
    notes = []
    assert list(build(copy, recipe, *sides, HERE, warn=notes.append)) == [(JOBS, JOBS)]
    assert {name: (copy / name).read_bytes() for name in before} == before and not notes


def test_outcomes_of_other_pictures_than_the_model_makes_are_told(copy, recipe, sides):
    (copy / "queries.npz").unlink()
    np.save(copy / "full.npy", 1.2 * read_npy(copy / "full.npy"))
    (copy / "outcomes" / "checks.npy").unlink()
    notes = []
    list(build(copy, recipe, *sides, HERE, warn=notes.append))
    assert len(notes) == 1 and "not those that were measured" in notes[0]


def test_a_bank_killed_while_its_model_was_saved_trains_it_again(copy, recipe, sides):
    fingerprint = loading.load(copy / "model").fingerprint
    (copy / "queries.npz").unlink()
    shutil.rmtree(copy / "model" / "unet")
    assert next(build(copy, recipe, *sides, HERE)) == (JOBS, JOBS)
    assert loading.load(copy / "model").fingerprint == fingerprint


def test_a_finished_bank_is_left_as_it_is(copy, recipe, sides):
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    assert list(build(copy, recipe, *sides, HERE)) == [(JOBS, JOBS)]
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize(
    "change", [{"subsets": 2}, {"seeds": 1}, {"part": 0.25}, {"training": Recipe(steps=3)}], ids=str
)
def test_another_recipe_in_the_same_folder_is_refused(built, recipe, sides, change):
    with pytest.raises(OptionError, match=r"another recipe.*new folder"):
        next(build(built[0], replace(recipe, **change), *sides, HERE))


def test_other_training_images_in_the_same_folder_are_refused(built, recipe, sides, pictures):
    with pytest.raises(OptionError, match="another train"):
        next(build(built[0], recipe, pictures(N, seed=5), sides[1], HERE))


def test_other_held_out_images_in_the_same_folder_are_refused(built, recipe, sides, pictures):
    with pytest.raises(OptionError, match="another"):
        next(build(built[0], recipe, sides[0], pictures(HELD_OUT, seed=5), HERE))


def test_a_damaged_bank_is_told(copy, recipe, sides):
    (copy / "bank.json").write_text('{"recipe": ')
    with pytest.raises(DataError, match=r"bank\.json"):
        next(build(copy, recipe, *sides, HERE))


def test_a_damaged_file_of_a_job_is_told_and_its_job_done_again(copy, recipe, sides):
    outcome, expected = read_npy(copy / "outcomes.npy"), read_npy(copy / "outcomes.npy")
    outcome[1, 0] = np.nan
    np.save(copy / "outcomes.npy", outcome)
    (copy / "outcomes" / "checks.npy").unlink()
    (copy / "parts" / "1_0.npz").write_bytes(b"PK\x03\x04 cut short")
    notes = []
    assert list(build(copy, recipe, *sides, HERE, warn=notes.append)) == [(JOBS - 1, JOBS), (JOBS, JOBS)]
    assert len(notes) == 1 and "1_0.npz" in notes[0] and "measured again" in notes[0]
    np.testing.assert_array_equal(read_npy(copy / "outcomes.npy"), expected)


@pytest.mark.parametrize(
    "name",
    ["outcomes.npy", "outcomes/elbo.npy", "outcomes/per-timestep.npy", "full.npy", "outcomes/checks.npy"],
)
@pytest.mark.parametrize("where", ["values", "header"])
def test_a_flipped_bit_is_found_named_and_measured_again(
    copy, recipe, sides, models, monkeypatch, name, where
):
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    path, data = copy / name, bytearray((copy / name).read_bytes())
    data[-3 if where == "values" else 0] ^= 16
    path.write_bytes(data)
    with pytest.raises(DataError, match="checksum is wrong" if where == "values" else "Could not read"):
        open_bank(copy)
    notes = []
    forbid_training(monkeypatch)  # the models are kept
    steps = list(build(copy, recipe, *sides, Workplace(Here(), models=models), warn=notes.append))
    assert notes and any(word in notes[0] for word in ("subset", "seed", name)) and "again" in notes[0]
    assert steps[-1] == (JOBS, JOBS)
    if where == "values" and name != "outcomes/checks.npy":
        assert steps[0] == (JOBS - 1, JOBS)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("limit", [200, 3000, 5000])
def test_a_full_disk_stops_a_build_clearly_and_it_goes_on_when_there_is_room(
    recipe, sides, built, models, small_files, tmp_path, monkeypatch, limit
):
    """What is too large depends on the limit: the recipe, the training images, the model, or the outcomes."""
    folder = tmp_path / "bank"
    with (
        small_files(limit),
        pytest.raises(StorageError, match=r"Could not write.*Free some space or name another folder"),
    ):
        list(build(folder, recipe, *sides, Workplace(Here(), models=tmp_path / "models")))
    assert not list(tmp_path.rglob("*.part"))
    list(build(folder, recipe, *sides, Workplace(Here(), models=models)))
    for path in built[0].rglob("*.npy"):
        assert path.read_bytes() == (folder / path.relative_to(built[0])).read_bytes()


# growing


def test_a_bank_grows_to_what_a_larger_one_would_have_been(copy, recipe, sides, models, tmp_path):
    larger = replace(recipe, subsets=4, seeds=3, learning=2)
    had = open_bank(copy)
    first = list(build(copy, larger, *sides, Workplace(Here(), models=models)))
    assert first[0] == (JOBS, 5 * 3 + 2)
    undisturbed = tmp_path / "whole"
    list(build(undisturbed, larger, *sides, Workplace(Here(), models=models)))
    for path in sorted(p for p in undisturbed.rglob("*.npy")):
        assert path.read_bytes() == (copy / path.relative_to(undisturbed)).read_bytes(), path
    assert (copy / "bank.json").read_bytes() == (undisturbed / "bank.json").read_bytes()
    assert np.array_equal(open_bank(copy).subsets[:SUBSETS], had.subsets)
    largest = replace(larger, subsets=5)  # subsets to learn from move up
    list(build(copy, largest, *sides, Workplace(Here(), models=models)))
    grown, small = open_bank(copy), open_bank(undisturbed)
    assert grown.learning_rows() == [5, 6] and np.array_equal(grown.subsets[5:], small.subsets[4:])
    np.testing.assert_array_equal(grown.outcomes()[5:, :1], small.outcomes()[4:, :1])


def test_subsets_to_learn_from_are_apart_and_never_compared_with(recipe, sides, tmp_path):
    list(build(tmp_path / "bank", replace(recipe, learning=3, seeds=1), *sides, HERE))
    bank = open_bank(tmp_path / "bank")
    assert bank.rows() == [0, 1, 2] and bank.learning_rows() == [3, 4, 5] and bank.seeds() == [0]
    assert len({row.tobytes() for row in bank.subsets}) == 6


def test_queries_added_later_are_measured_without_training(
    copy, recipe, sides, models, monkeypatch, pictures
):
    before, added = open_bank(copy), pictures(3, seed=9)
    forbid_training(monkeypatch)
    adding = build(copy, recipe, *sides, Workplace(Here(), models=models), new_queries=added)
    assert [next(adding) for _ in range(3)] == [(0, JOBS), (1, JOBS), (2, JOBS)]
    adding.close()
    halfway = open_bank(copy)  # nothing has changed for its readers
    assert halfway.queries.ids == before.queries.ids and halfway.done().all()
    np.testing.assert_array_equal(halfway.outcomes(), before.outcomes())
    list(build(copy, recipe, *sides, Workplace(Here(), models=models)))
    after = open_bank(copy)
    assert after.queries.split == (*before.queries.split, "added", "added", "added")
    for name in ("simple", "elbo", "per-timestep"):
        np.testing.assert_array_equal(after.outcomes(name)[:, :, :4], before.outcomes(name))
    model = loading.load(copy / "model")
    np.testing.assert_array_equal(
        read_npy(copy / "full.npy")[0, 4:],
        outcomes(model, after.queries, (), recipe.outcome_draws)["simple"][4:],
    )
    assert list(build(copy, recipe, *sides, HERE, new_queries=added)) == [
        (JOBS, JOBS)
    ]  # they are there already


def test_queries_of_another_size_are_refused(copy, recipe, sides, pictures):
    with pytest.raises(DataError, match=r"The images are 4×4 with 1 channel; the recipe.s network takes 8×8"):
        next(build(copy, recipe, *sides, HERE, new_queries=pictures(1, side=4)))


def test_growth_puts_finished_jobs_where_they_belong_and_mends_what_is_damaged(
    copy, recipe, sides, models, tmp_path
):
    """Files of subsets to learn from keep their meaning; damage does not get a new checksum."""
    small, large = replace(recipe, learning=2), replace(recipe, subsets=5, learning=2)
    workplace = Workplace(Here(), models=models)
    list(build(copy, small, *sides, workplace))
    (copy / "outcomes.npy").write_bytes(
        bytes(bytearray((copy / "outcomes.npy").read_bytes()[:-3]) + b"\x01\x02\x03")
    )
    first = {name: saved(copy, name)[3, 0] for name in ("simple", "elbo", "per-timestep")}
    np.savez(copy / "parts" / "3_0.npz", **first)
    notes = []
    list(build(copy, large, *sides, workplace, warn=notes.append))
    assert any("checksum" in line for line in notes)
    undisturbed = tmp_path / "whole"
    list(build(undisturbed, large, *sides, workplace))
    for path in undisturbed.rglob("*.npy"):
        assert path.read_bytes() == (copy / path.relative_to(undisturbed)).read_bytes(), path


def test_a_growth_that_was_killed_is_finished_by_the_next_build(
    copy, recipe, sides, models, tmp_path, monkeypatch
):
    larger, workplace = replace(recipe, subsets=5), Workplace(Here(), models=models)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("headwater.retraining.grow.write_subsets", killed)
        next(build(copy, larger, *sides, workplace))
    assert (copy / "parts" / "growth.npz").exists()
    list(build(copy, larger, *sides, workplace))
    assert not (copy / "parts" / "growth.npz").exists()
    undisturbed = tmp_path / "whole"
    list(build(undisturbed, larger, *sides, workplace))
    for path in undisturbed.rglob("*.npy"):
        assert path.read_bytes() == (copy / path.relative_to(undisturbed)).read_bytes(), path


def test_a_set_to_learn_from_that_growth_changes_loses_its_outcomes(recipe, pictures, tmp_path):
    sides = pictures(N, groups=tuple(f"g{i % 4}" for i in range(N))), pictures(2, seed=1)
    grouped = replace(recipe, scheme="group", subsets=2, seeds=1, learning=2)  # 6 sets of 2 of 4 groups
    list(build(tmp_path / "bank", grouped, *sides, HERE))
    list(build(tmp_path / "bank", replace(grouped, subsets=4), *sides, HERE))
    list(build(tmp_path / "whole", replace(grouped, subsets=4), *sides, HERE))
    for name in ("outcomes.npy", "subsets.npy"):
        assert (tmp_path / "bank" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_bank_may_grow_while_queries_are_added(copy, recipe, sides, models, pictures):
    workplace, added = Workplace(Here(), models=models), pictures(2, seed=9)
    adding = build(copy, recipe, *sides, workplace, new_queries=added)
    assert [next(adding) for _ in range(2)] == [(0, JOBS), (1, JOBS)]
    adding.close()
    list(build(copy, replace(recipe, subsets=4), *sides, workplace))
    bank = open_bank(copy)
    assert bank.done().all() and bank.done().shape == (4, 2) and len(bank.queries) == 6


def test_asking_again_for_the_same_queries_adds_them_once(copy, recipe, sides, models, pictures, monkeypatch):
    workplace, added = Workplace(Here(), models=models), pictures(2, seed=9)
    twice = Examples(np.concatenate([added.images, added.images]))
    for _ in range(2):
        adding = build(copy, recipe, *sides, workplace, new_queries=twice)
        next(adding)
        next(adding)
        adding.close()
    waiting = (copy / "parts" / "added.npz").read_bytes()
    list(build(copy, recipe, *sides, workplace, new_queries=added))
    assert len(open_bank(copy).queries) == 6
    (copy / "parts" / "added.npz").write_bytes(waiting)  # as if killed before it was removed
    assert list(build(copy, recipe, *sides, HERE)) == [(JOBS, JOBS)] and len(open_bank(copy).queries) == 6


def test_images_the_network_cannot_be_shown_are_refused_before_anything_is_written(
    recipe, sides, pictures, tmp_path
):
    conditional = replace(recipe, model=dict(recipe.model) | {"num_class_embeds": 3})
    labelled = Examples(sides[0].images, labels=np.arange(N) % 3)
    for changed, training, held_out, words in (
        (recipe, sides[0], pictures(2, channels=3), "with 3 channels"),
        (recipe, pictures(4, side=16), sides[1], "16×16"),
        (conditional, labelled, sides[1], "labels of the images are none"),
        (conditional, Examples(sides[0].images, labels=np.arange(N)), labelled, "0 … 11; expected 0 … 2"),
    ):
        with pytest.raises(DataError, match=words):
            next(build(tmp_path / "bank", changed, training, held_out, HERE))
        assert not (tmp_path / "bank").exists()


def test_the_number_of_threads_changes_nothing(built, recipe, sides, tmp_path):
    torch.set_num_threads(2)
    try:
        list(build(tmp_path / "bank", recipe, *sides, HERE))
    finally:
        torch.set_num_threads(1)
    assert (
        loading.load(tmp_path / "bank" / "model").fingerprint == loading.load(built[0] / "model").fingerprint
    )
    np.testing.assert_array_equal(saved(tmp_path / "bank", "simple"), saved(built[0], "simple"))


@pytest.mark.parametrize("name", ["subsets.npy", "train.npz", "bank.json"])
def test_other_files_of_a_damaged_bank_are_told_too(copy, pictures, name):
    from headwater.disk.npz import write_examples

    if name == "train.npz":
        write_examples(copy / name, pictures(N, seed=3))
    elif name == "bank.json":
        (copy / name).write_text("{}")
    else:
        data = bytearray((copy / name).read_bytes())
        data[-1] ^= 1
        (copy / name).write_bytes(data)
    with pytest.raises(DataError, match=name):
        open_bank(copy)


def test_damaged_subsets_are_written_again(copy, recipe, sides):
    before = (copy / "subsets.npy").read_bytes()
    (copy / "subsets.npy").write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert list(build(copy, recipe, *sides, HERE)) == [(JOBS, JOBS)]
    assert (copy / "subsets.npy").read_bytes() == before


@pytest.mark.parametrize("name", ["full", "checks", "outcomes"])
def test_files_that_are_no_measurements_are_none(copy, name):
    with pytest.raises(DataError, match=f"no outcomes for '{name}'"):
        open_bank(copy).outcomes(name)


def test_without_a_common_stream_every_subset_has_its_own(recipe, sides, built):
    subsets = open_bank(built[0]).subsets
    network = unet.Network(recipe.model)
    common = [training_of(network, recipe, subsets, (m, 0)).seed for m in range(-1, 3)]
    apart = [training_of(network, replace(recipe, common=False), subsets, (m, 0)).seed for m in range(-1, 3)]
    assert common == [0, 0, 0, 0] and len(set(apart)) == 4 and apart[0] == 0


def test_other_measurements_are_kept_beside(recipe, sides, tmp_path):
    list(
        build(
            tmp_path / "bank",
            replace(recipe, measurements=("square", "eta:0.3"), subsets=1, seeds=1),
            *sides,
            HERE,
        )
    )
    bank = open_bank(tmp_path / "bank")
    assert np.isfinite(bank.outcomes("square")).all() and np.isfinite(bank.outcomes("eta:0.3")).all()
    with pytest.raises(DataError, match="no outcomes for 'elbo'"):
        bank.outcomes("elbo")


def test_a_conditional_bank_gives_its_generated_queries_labels_that_the_model_has(recipe, sides, tmp_path):
    model = dict(recipe.model) | {"num_class_embeds": 3}
    labelled = [Examples(side.images, labels=np.arange(len(side)) % 3) for side in sides]
    next(build(tmp_path / "bank", replace(recipe, model=model), *labelled, HERE))
    labels = open_bank(tmp_path / "bank").queries.labels
    assert labels is not None and labels.min() >= 0 and labels.max() < 3


def test_the_recipe_is_kept_readable(built, recipe):
    info = json.loads((built[0] / "bank.json").read_text())
    assert info["recipe"] == recipe.fields() and info["recipe"]["training"]["steps"] == 2
    assert from_fields(info["recipe"]).fields() == recipe.fields()
    assert set(info["versions"]) == {"torch", "diffusers", "numpy"}
