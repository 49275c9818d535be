"""A bank of adapters: stopped, killed, grown, moved, used, compared with models trained by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_pipelines
from headwater.attribution.attribute import attribute
from headwater.attribution.experiment import run
from headwater.attribution.open import Models, Sources, open_experiment
from headwater.attribution.sweep import settings
from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import decoded, encoded
from headwater.diffusion.sample import conditioned, sample
from headwater.disk.npy import read_npy
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, ModelError, OptionError
from headwater.evaluate.ground_truth import of_run
from headwater.examples import Examples, to_uint8, with_channels
from headwater.models import cache as keeping
from headwater.models import loading, lora
from headwater.models.adapters import Tuning
from headwater.models.cache import trained
from headwater.models.train import Recipe, train
from headwater.retraining.build import build
from headwater.retraining.counterfactual import RANDOM, collect_results, plan_removals, remove
from headwater.retraining.jobs import trainable, training_of
from headwater.retraining.outcomes import outcomes
from headwater.retraining.queries import on_paths
from headwater.retraining.recipe import Adapters, BankRecipe, DataSource, from_fields
from headwater.retraining.workplace import Workplace
from headwater.run import open_run
from headwater.workers import Here, Pool

N, SUBSETS, GENERATED = 8, 3, 5
JOBS = SUBSETS + 1


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Stable Diffusion's folder."""
    root = tmp_path_factory.mktemp("pipeline")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tiny_pipelines.stable(root / "words").save_pretrained(root / "stable")
    return root / "stable"


@pytest.fixture(scope="module")
def recipe(base):
    return BankRecipe(
        data=DataSource(name="train.npz"),
        held_out=DataSource(name="held-out.npz"),
        adapters=Adapters(base=str(base), rank=2, guidance=2.0),
        training=Recipe(steps=2, batch=4, learning_rate=1e-1, betas=(0.9, 0.999), checkpoints=2),
        subsets=SUBSETS,
        seeds=1,
        scheme="stratified",
        generated=GENERATED,
        sample_steps=3,
        outcome_draws=Draws(5, "stratified", seed=77),
    )


@pytest.fixture(scope="module")
def sides(pictures):
    """Training images of two styles, and held-out ones."""

    def side(n, seed):
        styles = {"labels": np.arange(n) % 2, "groups": tuple("ab"[i % 2] for i in range(n))}
        return replace(
            pictures(n, seed=seed, side=16, channels=3),
            **styles,
            prompts=tuple(f"a {'ab'[i % 2]} p" for i in range(n)),
        )

    return side(N, 0), side(2, 1)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Where the first build keeps models, latents and embedded prompts."""
    root = tmp_path_factory.mktemp("kept")
    return Workplace(Here(), models=root / "models", store=FeatureStore(root / "store"))


@pytest.fixture(scope="module")
def built(recipe, sides, workplace, tmp_path_factory):
    """A bank whose build was stopped after two jobs, in another process, and gone on with here."""
    folder = tmp_path_factory.mktemp("bank") / "bank"
    first = build(folder, recipe, *sides, replace(workplace, crew=Pool(1)))
    assert [next(first) for _ in range(3)] == [(0, JOBS), (1, JOBS), (2, JOBS)]
    first.close()
    assert list(build(folder, recipe, *sides, workplace))[-1] == (JOBS, JOBS)
    return folder


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "bank")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def forbid_training(monkeypatch):
    for where in ("headwater.models.cache.train", "headwater.retraining.build.train"):
        monkeypatch.setattr(where, lambda *_, **__: pytest.fail("trained"))


def test_every_outcome_is_that_of_adapters_trained_by_hand(built, base, recipe, sides, workplace):
    bank = open_bank(built)
    network = Tuning(loading.load(base), workplace.store, 2)
    for subset in range(-1, SUBSETS):
        model = train(
            network, sides[0], recipe.training, 0, keep=None if subset < 0 else bank.subsets[subset]
        )
        expected = outcomes(
            model, encoded(model, bank.queries, workplace.store), recipe.measurements, recipe.outcome_draws
        )
        saved = read_npy(built / "full.npy")[0] if subset < 0 else bank.outcomes()[subset, 0]
        np.testing.assert_array_equal(saved, expected["simple"])
    assert np.ptp(bank.outcomes()[:, 0], axis=0).min() > 0  # what is left out is seen
    assert bank.done().all() and bank.subsets.sum() == SUBSETS * N // 2


def test_the_model_opens_by_itself_with_its_checkpoints_and_is_the_one_trained_on_all_data(
    built, base, recipe, sides, workplace
):
    expected = train(Tuning(loading.load(base), workplace.store, 2), sides[0], recipe.training, 0)
    model = loading.load(built / "model", checkpoints=2)
    assert (
        model.fingerprint
        == expected.fingerprint
        == model.checkpoints[-1].fingerprint
        != model.checkpoints[0].fingerprint
    )
    assert json.loads((built / "model" / "base.json").read_text()) == {"base": str(base), "size": [16, 16]}
    assert all("lora_" in name for name in model.parameters()) and not (built / "model" / "unet").exists()


def test_generated_queries_are_guided_pictures_of_the_training_prompts_in_blocks(built, sides):
    model, queries = loading.load(built / "model"), open_bank(built).queries
    assert queries.prompts == (*sides[1].prompts, "a a p", "a a p", "a a p", "a b p", "a b p")
    assert queries.split == ("val",) * 2 + ("gen",) * GENERATED and np.array_equal(
        queries.images[:2], sides[1].images
    )
    prompts = model.text.embed(queries.prompts[2:])
    latents = sample(model, range(GENERATED), 0, steps=3, predict=conditioned(model, prompts, 2.0)).pictures
    assert np.array_equal(queries.images[2:], to_uint8(decoded(model, latents).numpy()))


def test_the_recipe_is_kept_and_comes_back(built, recipe, base):
    info = open_bank(built).info
    assert from_fields(info["recipe"]) == recipe and info["base"] == loading.load(base).fingerprint


def test_two_processes_and_another_store_make_the_same_bank(built, recipe, sides, tmp_path):
    workplace = Workplace(Pool(2), models=tmp_path / "models", store=FeatureStore(tmp_path / "store"))
    list(build(tmp_path / "bank", recipe, *sides, workplace))
    assert files(tmp_path / "bank") == files(built)


def test_a_build_killed_in_the_middle_of_a_training_ends_as_an_undisturbed_one(
    built, recipe, sides, tmp_path, monkeypatch
):
    """Killed after the first checkpoint of a model, and before the pictures are written."""
    workplace, folder = (
        Workplace(Here(), models=tmp_path / "models", store=FeatureStore(tmp_path / "store")),
        tmp_path / "bank",
    )
    save = keeping.written

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lora, "written", _once(lora.written, killed))
        list(build(folder, recipe, *sides, workplace))
    assert not loading.has_model(folder / "model")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("headwater.retraining.build.queries_of", killed)
        list(build(folder, recipe, *sides, workplace))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keeping, "written", killed)
        list(build(folder, recipe, *sides, workplace))
    assert save is keeping.written and list((tmp_path / "models").glob("*.state"))
    list(build(folder, recipe, *sides, workplace))
    assert files(folder) == files(built)


def _once(function, then, calls=3):
    """`function` for the given number of calls, then `then`."""
    count = [0]

    def called(*arguments, **named):
        count[0] += 1
        return (function if count[0] <= calls else then)(*arguments, **named)

    return called


def test_kept_models_are_the_adapters_alone_and_are_not_trained_again(
    built, recipe, sides, workplace, monkeypatch
):
    subsets = open_bank(built).subsets
    network = trainable(recipe, (16, 16), workplace.store)
    training = training_of(network, recipe, subsets, (1, 0))
    path = workplace.models / f"{training.name(sides[0])}.safetensors"
    assert path.stat().st_size < 20_000 < 4 * sum(p.numel() for p in network.base.module.parameters())
    forbid_training(monkeypatch)
    model = trained(training, sides[0], workplace.models)
    assert len(list(workplace.models.iterdir())) == SUBSETS and all(
        "lora_" in name for name in model.parameters()
    )


def test_everything_that_decides_adapters_is_in_their_name(recipe, sides, workplace):
    network = trainable(recipe, (16, 16), workplace.store)
    training = training_of(network, recipe, np.ones((1, N), bool), (0, 0))
    base = replace(network.base, fingerprint="of other weights")
    networks = [network, replace(network, rank=3), replace(network, base=base)]
    names = [replace(training, network=changed).name(sides[0]) for changed in networks]
    assert len({*names, training.name(replace(sides[0], prompts=("a q p",) * N))}) == 4


def test_queries_added_later_are_measured_without_training(copy, recipe, sides, workplace, monkeypatch):
    before, added = open_bank(copy), replace(sides[1].take([1]), images=255 - sides[1].images[1:])
    with pytest.raises(DataError, match="conditioned on prompts and the images have none"):
        next(build(copy, recipe, *sides, workplace, new_queries=replace(added, prompts=None)))
    forbid_training(monkeypatch)
    list(build(copy, recipe, *sides, workplace, new_queries=added))
    after = open_bank(copy)
    assert after.queries.prompts == (*before.queries.prompts, "a b p") and after.done().all()
    np.testing.assert_array_equal(after.outcomes()[:, :, :-1], before.outcomes())


def test_a_bank_grows_to_what_a_larger_one_would_have_been(copy, recipe, sides, workplace, tmp_path):
    larger = replace(recipe, subsets=4, learning=1)
    list(build(copy, larger, *sides, workplace))
    list(build(tmp_path / "whole", larger, *sides, workplace))
    assert files(copy) == files(tmp_path / "whole")


def test_a_bank_without_pictures_makes_them_anew(copy, recipe, sides, workplace, monkeypatch):
    forbid_training(monkeypatch)
    before, notes = files(copy), []
    for name in ("train.npz", "queries.npz"):
        (copy / name).unlink()
    list(build(copy, recipe, *sides, workplace, warn=notes.append))
    assert files(copy) == before and not notes


def test_a_base_that_moved_is_named_and_found_again(
    copy, recipe, sides, workplace, base, tmp_path, monkeypatch
):
    folder = shutil.copytree(base, tmp_path / "moved")
    away = replace(recipe, adapters=replace(recipe.adapters, base=str(tmp_path / "gone")))
    for path in copy.rglob("base.json"):
        path.write_text(path.read_text().replace(str(base), str(tmp_path / "gone")))
    with pytest.raises(
        ModelError, match=r"bank/model were trained on .*/gone, which cannot be opened.*model/base.json"
    ):
        loading.load(copy / "model")
    with pytest.raises(ModelError, match="gone"):
        next(build(copy, away, *sides, workplace))
    forbid_training(monkeypatch)
    moved = replace(recipe, adapters=replace(recipe.adapters, base=str(folder)))
    assert list(build(copy, moved, *sides, workplace)) == [(JOBS, JOBS)]
    assert from_fields(open_bank(copy).info["recipe"]) == moved
    assert (
        loading.load(copy / "model", checkpoints=2).fingerprint
        == loading.load(copy / "checkpoints" / "step-2").fingerprint
    )


def test_another_base_other_prompts_and_another_rank_are_refused(
    copy, recipe, sides, workplace, base, tmp_path
):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        tiny_pipelines.stable(tmp_path / "words").save_pretrained(tmp_path / "other")
    based = replace(recipe, adapters=replace(recipe.adapters, base=str(tmp_path / "other")))
    prompted = [replace(side, prompts=("a q p",) * len(side)) for side in sides]
    ranked = replace(recipe, adapters=replace(recipe.adapters, rank=3))
    for changed, images, word in (
        (based, sides, "another base"),
        (recipe, prompted, "another prompts"),
        (ranked, sides, "adapters"),
    ):
        with pytest.raises(OptionError, match=word):
            next(build(copy, changed, *images, workplace))


def test_what_the_base_cannot_do_is_told_before_anything_is_written(recipe, sides, workplace, tmp_path):
    pipelines = {"sd3": tiny_pipelines.sd3(tmp_path / "words"), "dit": tiny_pipelines.dit()}
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(tmp_path / name)
    pipelines = {
        name: replace(recipe, adapters=replace(recipe.adapters, base=str(tmp_path / name)))
        for name in pipelines
    }
    small = [Examples(side.images[:, :8, :8], prompts=side.prompts) for side in sides]
    bare = [Examples(side.images) for side in sides]
    for changed, images, words in (
        (pipelines["sd3"], sides, "'elbo'"),
        (replace(pipelines["sd3"], measurements=("simple",), sampler="ddpm"), sides, "'ddpm'"),
        (pipelines["dit"], sides, "no LoRA of a DiTTransformer2DModel"),
        (recipe, [sides[0], small[1]], "the model takes 16×16"),
        (replace(recipe, scheme="half"), bare, "the images have none"),
    ):
        with pytest.raises((DataError, ModelError, OptionError), match=words):
            next(build(tmp_path / "bank", changed, *images, workplace))
        assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("method", ["d-trak", "k-fac", "journey-trak", "tracin"])
def test_attribution_on_the_bank_gets_a_figure(built, workplace, tmp_path, method):
    fields = {"timesteps": 2} | ({"checkpoints": 2} if method == "tracin" else {})
    opened = open_experiment(method, fields, Sources(), Models([]), str(built))
    run(opened, tmp_path / "run", workplace.store)
    truth = open_run(tmp_path / "run").info["ground_truth"]
    assert np.isfinite([*truth["per_query"]]).all() and len(truth["per_query"]) == len(opened.queries)
    figures = of_run(tmp_path / "run", open_bank(built))
    assert all(-1 <= split.lds.mean <= 1 for split in figures.splits.values())


def test_an_ensemble_is_of_adapters_retrained_on_further_subsets(copy, recipe, sides, workplace):
    list(build(copy, replace(recipe, learning=1), *sides, workplace))
    models = Models([], 1, workplace.models, store=workplace.store)
    (model,) = open_experiment("d-trak", {}, Sources(), models, str(copy)).models
    network, bank = trainable(recipe, (16, 16), workplace.store), open_bank(copy)
    assert (
        model.fingerprint
        == train(network, sides[0], recipe.training, 0, keep=bank.subsets[SUBSETS]).fingerprint
    )


def test_a_sweep_of_dampings_is_of_what_the_model_is_shown(built, workplace):
    opened = open_experiment("d-trak", {"timesteps": 2}, Sources(), Models([]), str(built))
    scores = settings(opened, {"damping": [0.1, 1.0]}, workplace.store)
    alone = replace(opened.built(), damping=0.1)
    expected = attribute(
        opened.models[0], opened.train, opened.queries, method=alone, store=workplace.store
    ).values
    np.testing.assert_allclose(
        scores[(("damping", 0.1),)], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
    )


def test_a_picture_is_made_again_without_its_sources(built, recipe, sides, workplace, tmp_path):
    bank = open_bank(built)
    removals = plan_removals(bank, [], 2, [2])
    assert list(remove(removals, tmp_path, workplace))[-1] == (4, 4)
    figures = collect_results(removals, tmp_path, workplace)
    assert figures.sampler == "ddim, 3 steps, guidance 2"
    query, keep = removals.queries[0], removals.after(RANDOM, 2)[0].mask
    network = trainable(recipe, (16, 16), workplace.store)
    model, prompts = (
        train(network, sides[0], recipe.training, 0, keep=keep),
        bank.queries.prompts[query : query + 1],
    )
    predict = conditioned(model, model.text.embed(prompts), 2.0)
    after = decoded(
        model, sample(model, range(query - 2, query - 1), 0, steps=3, predict=predict).pictures
    ).numpy()
    pictures = np.load(tmp_path / "pictures.npz")
    np.testing.assert_array_equal(pictures["before"][0], bank.queries.images[query])
    assert figures.methods[RANDOM].removed[2]["l2"].values[0] > 0
    assert any(
        np.array_equal(np.squeeze(pictures[name])[0], to_uint8(after)[0])
        for name in pictures.files
        if name != "before"
    )


def test_generated_queries_come_again_with_their_paths_in_latents(built):
    bank = on_paths(open_bank(built))
    assert bank.queries.prompts == ("a a p",) * 3 + ("a b p",) * 2 and bank.queries.trajectory.shape == (
        GENERATED,
        4,
        2,
        8,
        8,
    )
    model = loading.load(built / "model")
    last = decoded(model, torch.as_tensor(bank.queries.trajectory[:, -1]))
    assert np.abs(to_uint8(last.numpy()).astype(int) - bank.queries.images).max() <= 1


def test_a_bank_of_grey_pictures_is_that_of_their_rgb_copies(recipe, sides, workplace, tmp_path):
    grey = [replace(side, images=side.images[..., :1]) for side in sides]
    banks = []
    for name, (training, held_out) in (("grey", grey), ("rgb", [with_channels(side, 3) for side in grey])):
        few = replace(recipe, subsets=1, generated=2)
        added = with_channels(grey[0].take([0]), training.shape[0])
        list(build(tmp_path / name, few, training, held_out, workplace))
        list(build(tmp_path / name, few, training, held_out, workplace, new_queries=added))
        banks.append(open_bank(tmp_path / name))
    assert banks[0].queries.hashes == banks[1].queries.hashes and len(banks[0].queries) == 5
    assert np.array_equal(banks[0].outcomes(), banks[1].outcomes())
    banks[0].check_made_from(banks[1].train)
