from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.attribution.attribute import attribute
from headwater.disk.store import FeatureStore
from headwater.gradients import projected
from headwater.methods.gradient import Gradient
from headwater.methods.kfac import KFAC
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


def test_a_note_is_heard_once_for_all_models_and_again_where_nothing_is_computed(tiny, pictures, tmp_path):
    models, few = (
        [tiny(torch.float32, seed=seed) for seed in (0, 1)],
        KFAC(timesteps=1, curvature_timesteps=2),
    )
    for _ in range(2):
        notes = []
        store = FeatureStore(tmp_path, warn=notes.append)
        attribute(models, pictures(2), pictures(2, seed=1), method=few, store=store)
        assert len(notes) == 1 and "Rounding decides more than 1% of" in notes[0]


def test_a_note_on_what_models_are_shown_is_heard_once_for_all_of_them(tiny, pictures, tmp_path):
    models, notes = [tiny(classes=2, seed=seed) for seed in (0, 1)], []
    images = pictures(2, groups=("cat", "dog"), labels=np.arange(2))
    method, store = Gradient(timesteps=1, k=8), FeatureStore(tmp_path)
    attribute(models, images, images, method=method, store=store, warn=notes.append)
    assert len(notes) == 1 and "numbered in the order of their names" in notes[0]


@pytest.mark.parametrize("damping", [1e300, 0.1])
def test_scores_that_are_all_zero_are_said(tiny, pictures, tmp_path, damping):
    notes = []
    store = FeatureStore(tmp_path, warn=notes.append)
    method = TRAK(timesteps=1, k=8, damping=damping)
    scores = attribute(tiny(), pictures(3), pictures(2, seed=1), method=method, store=store)
    assert scores.values.any() == (damping == 0.1)
    assert notes == [] if damping == 0.1 else "Every score of 2 of 2 queries is 0" in notes[0]
