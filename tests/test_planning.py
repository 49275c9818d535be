"""Plans: counts that can be done by hand, and seconds that are really measured."""

import time
from dataclasses import replace

import numpy as np
import pytest

from headwater.cost.bank import Measured, cost, counts, lines, measured, plan, seconds, seen
from headwater.examples import Examples
from headwater.methods import METHODS, make
from headwater.models.train import _batches
from headwater.retraining.recipe import SIZES, DataSource, recipe


def test_the_d_trak_bank_of_cifar_2_in_numbers():
    """192 halves of 4,000 steps and 3 models of 8,000; each measured on 2,000 queries × 3,000 draws; 4 bytes a parameter."""
    found = counts(recipe("d-trak-cifar2"), 5000, 1000, 35_700_000)
    assert (found.trainings, found.steps) == (195, 192 * 4000 + 3 * 8000)
    assert found.pictures == 192 * 200 * 2500 + 3 * 200 * 5000
    assert found.measuring == 195 * 2000 * 3000 and found.sampling == 1000 * 50
    assert found.bytes_of_models == 195 * 4 * 35_700_000
    assert found.bytes_of_bank == 195 * 2000 * (2 * 4 + 20 * 2) + 5 * 4 * 35_700_000


def test_subsets_to_learn_from_are_counted_too():
    few = replace(recipe("digits"), subsets=2, seeds=3, learning=5, learning_seeds=1)
    found = counts(few, 1000, 100, 10)
    assert found.trainings == 3 + 2 * 3 + 5 and found.steps == 14 * 1000


@pytest.mark.parametrize(("n", "steps", "batch"), [(10, 7, 4), (5, 3, 8), (12, 6, 4), (9, 1, 4)])
def test_pictures_seen_are_those_of_the_batches(n, steps, batch):
    assert seen(n, steps, batch) == sum(len(rows) for _, rows in _batches(np.ones(n, bool), batch, 0, 0, steps))


def test_seconds_are_of_the_largest_number_that_fits_the_patience():
    asked = []

    def work(size):
        asked.append(size)
        time.sleep(0.002 * size)

    found = seconds(work, patience=0.1, most=64)
    assert found == pytest.approx(0.002, rel=0.5) and asked[:3] == [1, 1, 2] and 8 <= asked[-1] <= 32


def test_a_method_costs_its_gradients_and_its_rows():
    found, rate = counts(recipe("digits"), 1000, 100, 10), Measured(1.0, 1.0, 0.5, 0.1, 0)
    assert not any(cost(make("pixel", {}), found, rate).values())
    method = make("d-trak", {"timesteps": 100, "noises": 3, "k": 512})
    passes = {"train": 300, "query": 300, "train_forward": 0, "query_forward": 0}
    assert cost(method, found, rate) == passes | {"seconds": 1200 * 300 * 0.5, "bytes": 4 * 1200 * 512}


@pytest.mark.parametrize(
    ("name", "fields", "passes", "stored"),
    [
        ("tracin", {"checkpoints": 3}, (30, 30, 0, 0), 3),
        ("journey-trak", {"noises": 2}, (20, 100, 0, 50), 1),
        ("das", {"error_timesteps": 70}, (10, 10, 70, 0), 1),
        ("das", {"error": False}, (10, 10, 0, 0), 1),
        ("trak", {"query_timesteps": 5}, (10, 5, 0, 0), 1),
    ],
)
def test_methods_cost_the_passes_that_they_make(name, fields, passes, stored):
    found, rate = counts(recipe("digits"), 1000, 100, 10), Measured(1.0, 0.25, 0.5, 0.1, 0)
    each = cost(make(name, {"k": 512} | fields), found, rate)
    train, query, train_forward, query_forward = passes
    assert [each[key] for key in ("train", "query", "train_forward", "query_forward")] == list(passes)
    assert each["seconds"] == (1000 * train + 200 * query) * 0.5 + (1000 * train_forward + 200 * query_forward) * 0.25
    assert each["bytes"] == 4 * 1200 * 512 * stored


def test_a_plan_measures_this_machine_and_says_all(smallest, monkeypatch):
    monkeypatch.setattr("headwater.cost.bank.PATIENCE", 0.05)
    for config in (smallest, smallest | {"num_class_embeds": 3}):
        what = replace(recipe("digits"), model=config, data=DataSource(name="digits"))
        rate = measured(what)
        assert 0 < rate.forward < rate.step < 10 and rate.gradient > rate.forward and rate.draw > 0 and rate.peak > 10**7
    found = plan(what, {"data": 1000, "held_out": 100}, workers=2)
    assert found["hours"]["in_all"] > found["hours"]["training"] / 2 and set(found["methods"]) == set(METHODS)
    text = "\n".join(lines("digits", what, found))
    for word in ("130 (2 of all data, 64 subsets × 2 seeds)", "130,000 of batch 64", "with 2 at once", "d-trak"):
        assert word in text


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("digits")])
def test_sizes_that_recipes_count_on_are_those_of_the_sources(name):
    assert len(DataSource(name=name).open()) == SIZES[name] == DataSource(name=name).size()
    assert DataSource(name=name, count=7).size() == 7


def test_the_size_of_other_sources_is_looked_up(tmp_path, pictures):
    from headwater.disk.npz import write_examples

    write_examples(tmp_path / "a.npz", Examples(pictures(5).images))
    assert DataSource(name=str(tmp_path / "a.npz")).size() == 5


def test_queries_that_do_not_fit_the_memory_send_the_training_images_past_again():
    rate = Measured(step=1.0, forward=0.25, gradient=0.5, draw=0.0, peak=0)
    large = replace(counts(recipe("digits"), 1000, 100, 2**26), n=10, queries=9)  # four queries' gradients are 1 GiB
    method = make("ek-fac", {"timesteps": 100, "curvature_timesteps": 7})
    assert cost(method, large, rate)["train"] == 3 * 100 + 2 * 7
    assert cost(replace(method, compression="int8"), large, rate)["train"] == 100 + 2 * 7
