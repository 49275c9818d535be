import json
from dataclasses import replace

import pytest
import torch

from headwater.attribution.experiment import Experiment, check_draws, run
from headwater.attribution.open import Models, Sources, open_experiment
from headwater.attribution.sweep import settings
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.families.fields import settings_of
from headwater.methods import METHODS, make, method_class

OUTCOMES = 20231101  # the seed of the draws of the bank's outcomes


@pytest.mark.parametrize("name", [name for name in METHODS if "seed" in settings_of(method_class(name))])
def test_no_seed_gives_a_method_the_noise_of_the_outcomes_that_judge_it(name):
    bank = open_bank("digits")
    assert bank.info["recipe"]["outcome_draws"]["seed"] == OUTCOMES
    for first, models in ((OUTCOMES, 0), (OUTCOMES, 1), (OUTCOMES - 2, 3)):
        with pytest.raises(OptionError, match=f"seed is {first}; the outcomes .* seed {OUTCOMES}"):
            check_draws(make(name, {"seed": first}), bank, models)
    for first, models in ((OUTCOMES + 1, 4), (OUTCOMES - 2, 2), (0, 1)):
        check_draws(make(name, {"seed": first}), bank, models)


def test_an_experiment_and_a_sweep_refuse_it_before_the_first_gradient(tmp_path):
    with pytest.raises(OptionError, match="Choose another seed"):
        open_experiment("trak", {"seed": OUTCOMES}, Sources(), Models([]), "digits")
    experiment = open_experiment("trak", {}, Sources(), Models([]), "digits")
    with pytest.raises(OptionError, match="Choose another seed"):
        settings(experiment, {"seed": [1, OUTCOMES]}, FeatureStore(tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_run_keeps_the_notes_of_its_computation_when_it_is_made_again_from_the_store(
    tiny, pictures, tmp_path
):
    few = {"timesteps": 1, "curvature_timesteps": 2}
    model = tiny(torch.float32)
    experiment = Experiment("k-fac", few, pictures(2), pictures(2, seed=1), [model], notes=["before"])
    for _ in range(2):
        run(experiment, tmp_path / "run", FeatureStore(tmp_path, warn=lambda note: None), force=True)
        first, second = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
        assert first == "before" and second.startswith("Rounding decides more than 1% of")


def test_a_run_from_before_a_field_came_is_still_the_same_run(tiny, pictures, tmp_path):
    experiment = Experiment("trak", {"timesteps": 1, "k": 8}, pictures(3), pictures(2, seed=1), [tiny()])
    out, store = tmp_path / "run", FeatureStore(tmp_path / "store")
    assert run(experiment, out, store) and not run(experiment, out, store)
    info = json.loads((out / "run.json").read_text())
    del info["settings"]["fields"]["noise"]
    (out / "run.json").write_text(json.dumps(info))
    assert not run(experiment, out, store)
    with pytest.raises(OptionError, match="already holds a run"):
        run(replace(experiment, fields={"timesteps": 1, "k": 8, "noise": "shared"}), out, store)
