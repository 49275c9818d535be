"""Plans: counts checked by hand, and seconds timed on this machine."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from headwater.cost.bank import (
    BankPlan,
    Cost,
    Hours,
    Rates,
    as_text,
    bank_counts,
    cost,
    pictures_seen,
    plan_bank,
    seconds,
    timed_rates,
)
from headwater.examples import Examples
from headwater.methods import METHODS, make
from headwater.models.train import _batches
from headwater.retraining.recipe import SIZES, DataSource
from headwater.retraining.recipes import recipe


def test_the_d_trak_bank_of_cifar_2_in_numbers():
    """192 halves of 4,000 steps and 3 models of 8,000; each measured on 2,000 queries × 3,000 draws; 4 bytes
    a parameter."""
    counts = bank_counts(recipe("d-trak-cifar2"), 5000, 1000, 35_700_000)
    assert (counts.trainings, counts.steps) == (195, 192 * 4000 + 3 * 8000)
    assert counts.pictures == 192 * 200 * 2500 + 3 * 200 * 5000
    assert counts.measuring == 195 * 2000 * 3000 and counts.sampling == 1000 * 50
    assert counts.bytes_of_models == 195 * 4 * 35_700_000
    assert counts.bytes_of_bank == 195 * 2000 * (2 * 4 + 20 * 2) + 5 * 4 * 35_700_000


def test_subsets_to_learn_from_are_counted_too():
    few = replace(recipe("digits"), subsets=2, seeds=3, learning=5, learning_seeds=1)
    counts = bank_counts(few, 1000, 100, 10)
    assert counts.trainings == 3 + 2 * 3 + 5 and counts.steps == 14 * 1000


@pytest.mark.parametrize(("n", "steps", "batch"), [(10, 7, 4), (5, 3, 8), (12, 6, 4), (9, 1, 4)])
def test_pictures_seen_are_those_of_the_batches(n, steps, batch):
    assert pictures_seen(n, steps, batch) == sum(
        len(rows) for _, rows in _batches(np.ones(n, bool), batch, 0, 0, steps)
    )


def test_seconds_are_of_the_largest_number_that_fits_the_patience():
    sizes = []

    def work(size):
        sizes.append(size)
        time.sleep(0.002 * size)

    assert seconds(work, patience=0.1, most=64) == pytest.approx(0.002, rel=0.5)
    assert sizes[:3] == [1, 1, 2] and 8 <= sizes[-1] <= 32


def test_a_plan_has_the_json_of_the_command_line():
    counts, rates = bank_counts(recipe("digits"), 1000, 100, 10), Rates(1.0, 0.5, 0.75, 0.25, 7)
    plan = BankPlan(counts, rates, Hours(3.0, 2.0, 1.0, 4.0, 2), {"pixel": Cost(0, 0, 0, 0, 0.0, 0)})
    text = json.dumps(plan.as_json())
    assert text[text.index('"seconds_a_picture"') :] == (
        '"seconds_a_picture": {"step": 1.0, "forward": 0.5, "gradient": 0.75, "draw": 0.25}, '
        '"hours": {"training": 3.0, "sampling": 2.0, "measuring": 1.0, "in_all": 4.0, "workers": 2}, '
        '"peak_of_a_process": 7, "methods": {"pixel": {"train": 0, "query": 0, "train_forward": 0, '
        '"query_forward": 0, '
        '"seconds": 0.0, "bytes": 0}}}'
    )
    assert list(plan.as_json()["counts"]) == [
        "trainings",
        "steps",
        "pictures",
        "sampling",
        "measuring",
        "parameters",
        "factors",
        "n",
        "queries",
        "bytes_of_models",
        "bytes_of_bank",
    ]


def test_a_method_costs_its_gradients_and_its_rows():
    counts, rates = bank_counts(recipe("digits"), 1000, 100, 10), Rates(1.0, 1.0, 0.5, 0.1, 0)
    assert cost(make("pixel", {}), counts, rates) == Cost(0, 0, 0, 0, seconds=None, bytes=0)
    method = make("d-trak", {"timesteps": 100, "noises": 3, "k": 512})
    assert cost(method, counts, rates) == Cost(300, 300, 0, 0, seconds=1200 * 300 * 0.5, bytes=4 * 1200 * 512)


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
def test_the_cost_of_a_method_counts_its_passes(name, fields, passes, stored):
    counts, rates = bank_counts(recipe("digits"), 1000, 100, 10), Rates(1.0, 0.25, 0.5, 0.1, 0)
    train, query, train_forward, query_forward = passes
    expected = (1000 * train + 200 * query) * 0.5 + (1000 * train_forward + 200 * query_forward) * 0.25
    assert cost(make(name, {"k": 512} | fields), counts, rates) == Cost(
        *passes, expected, 4 * 1200 * 512 * stored
    )


def test_a_plan_times_this_machine_and_prints_every_part(smallest):
    for config in (smallest, smallest | {"num_class_embeds": 3}):
        bank_recipe = replace(recipe("digits"), model=config, data=DataSource(name="digits"))
        rates = timed_rates(bank_recipe, patience=0.05)
        assert 0 < rates.forward < rates.step < 10 and rates.gradient > rates.forward
        assert rates.draw > 0 and rates.peak > 10**7
    plan = plan_bank(bank_recipe, 1000, 100, workers=2, patience=0.05)
    assert plan.hours.in_all > plan.hours.training / 2 and set(plan.methods) == set(METHODS)
    text = as_text("digits", bank_recipe, plan)
    for word in (
        "130 (2 of all data, 64 subsets × 2 seeds)",
        "130,000 of batch 64",
        "with 2 at once",
        "d-trak",
    ):
        assert word in text


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("digits")])
def test_the_sizes_in_recipes_are_the_sizes_of_their_sources(name):
    assert len(DataSource(name=name).open()) == SIZES[name] == DataSource(name=name).size()
    assert DataSource(name=name, count=7).size() == 7


def test_the_size_of_other_sources_is_looked_up(tmp_path, pictures):
    from headwater.disk.npz import write_examples

    write_examples(tmp_path / "a.npz", Examples(pictures(5).images))
    assert DataSource(name=str(tmp_path / "a.npz")).size() == 5


def test_queries_that_do_not_fit_the_memory_send_the_training_images_past_again():
    rates = Rates(step=1.0, forward=0.25, gradient=0.5, draw=0.0, peak=0)
    # four queries' gradients are 1 GiB
    large = replace(bank_counts(recipe("digits"), 1000, 100, 2**26), n=10, queries=9)
    method = make("ek-fac", {"timesteps": 100, "curvature_timesteps": 7})
    assert cost(method, large, rates).train == 3 * 100 + 2 * 7
    assert cost(replace(method, compression="int8"), large, rates).train == 100 + 2 * 7
