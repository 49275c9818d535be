from dataclasses import replace

import pytest

from headwater.attribution.attribute import attribute
from headwater.disk.store import FeatureStore
from headwater.gradients import projected
from headwater.methods.tracin import TracIn
from headwater.methods.trak import TRAK


def test_the_store_s_memory_is_the_budget_of_every_model_and_checkpoint(
    tiny, pictures, tmp_path, monkeypatch
):
    budgets, fit = [], projected.draws_that_fit

    def recorded(model, *inputs):
        budgets.append(model.memory)
        return fit(model, *inputs)

    monkeypatch.setattr(projected, "draws_that_fit", recorded)
    final = tiny()
    models = [replace(final, checkpoints=(tiny(seed=1), final), memory=5), tiny(seed=2)]
    store = FeatureStore(tmp_path, memory=2**21)
    method, notes = TracIn(timesteps=1, k=8), []
    attribute(models, pictures(3), pictures(2, seed=1), method=method, store=store, warn=notes.append)
    assert set(budgets) == {2**21}
    assert len(budgets) >= 6  # two checkpoints and a model, of training images and of queries


def test_a_model_that_is_within_its_budget_stays_itself(tiny):
    model = tiny()
    assert model.within(model.memory) is model
    assert model.within(7).memory == 7


@pytest.mark.parametrize("damping", [1e300, 0.1])
def test_scores_that_are_all_zero_are_said(tiny, pictures, tmp_path, damping):
    notes = []
    store = FeatureStore(tmp_path, warn=notes.append)
    method = TRAK(timesteps=1, k=8, damping=damping)
    scores = attribute(tiny(), pictures(3), pictures(2, seed=1), method=method, store=store)
    assert scores.values.any() == (damping == 0.1)
    assert notes == [] if damping == 0.1 else "Every score of 2 of 2 queries is 0" in notes[0]
