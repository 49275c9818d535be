"""Schedulers on disk: the noise schedule of diffusers' own class, whatever the file leaves out, or a refusal
when the model is opened."""

import json

import diffusers
import numpy as np
import pytest
import torch

from headwater.errors import ModelError
from headwater.models import loading, unet
from headwater.models.folders import schedule_of

CLASSES = [
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "TCDScheduler", "RePaintScheduler"),
]
KEYS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "trained_betas")


def written(folder, **config):
    folder.mkdir(exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return folder


def close(schedule, scheduler):
    np.testing.assert_allclose(schedule.alpha_bar, scheduler.alphas_cumprod, rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore:__array_")  # of diffusers' own classes
def test_what_a_config_leaves_out_is_its_classs_default(tmp_path, name):
    kind = getattr(diffusers, name)
    schedule = schedule_of(written(tmp_path, _class_name=name))
    close(schedule, kind())
    assert schedule.prediction == "epsilon"
    whole = dict(kind(beta_start=0.001, beta_end=0.013, num_train_timesteps=500).config)
    for key in KEYS:
        config = {other: value for other, value in whole.items() if other != key}
        close(
            schedule_of(written(tmp_path, **config, _class_name=name)),
            kind(**{k: v for k, v in config.items() if k[0] != "_"}),
        )


def test_a_config_without_a_class_is_of_the_class_in_the_pipelines_index(tiny, smallest, tmp_path):
    unet.save_pipeline(tiny(**smallest), tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "LCMScheduler"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    written(tmp_path / "scheduler")
    close(loading.load(tmp_path).schedule, diffusers.LCMScheduler())


def test_the_old_word_for_a_predicted_picture_is_read(tmp_path):
    old = {"_class_name": "DDPMScheduler", "predict_epsilon": False}
    assert schedule_of(written(tmp_path, **old)).prediction == "sample"
    assert schedule_of(written(tmp_path, **old, prediction_type="epsilon")).prediction == "epsilon"


@pytest.mark.parametrize(
    "config",
    [
        {"trained_betas": [0.1, float("nan"), 0.2]},
        {"trained_betas": []},
        {"trained_betas": [[0.1, 0.2]]},
        {"trained_betas": ["much"]},
        {"trained_betas": [0.1, 1.0, 0.2]},
        {"trained_betas": [0.1, -0.1]},
        {"beta_start": float("nan")},
        {"beta_end": 1.5},
        {"beta_start": -1e-4},
        {"beta_end": None},
        {"beta_end": "0.02"},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": -5},
        {"num_train_timesteps": None},
        {"beta_schedule": "magic"},
        {"beta_schedule": "scaled_linear", "beta_start": -0.1},
        {"beta_schedule": None},
    ],
    ids=str,
)
def test_an_impossible_schedule_is_refused_when_the_model_is_opened(tmp_path, config):
    with pytest.raises(ModelError) as raised:
        schedule_of(written(tmp_path, _class_name="DDPMScheduler", **config))
    assert len(str(raised.value)) < 400 and "schedule" in str(raised.value)


def test_no_signal_at_the_last_timestep_is_possible(tmp_path):
    config = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
    assert schedule_of(written(tmp_path, **config)).alpha_bar[-1] == 0


def test_a_table_of_betas_is_rescaled_to_no_signal_as_well(tmp_path):
    config = {"trained_betas": np.linspace(1e-3, 0.03, 200).tolist(), "num_train_timesteps": 200}
    config |= {"rescale_betas_zero_snr": True}
    schedule = schedule_of(written(tmp_path, _class_name="DDIMScheduler", **config))
    close(schedule, diffusers.DDIMScheduler(**config))


@pytest.mark.parametrize("count", [300, 2000])
def test_more_or_fewer_betas_than_timesteps_are_refused(tmp_path, count):
    config = {"trained_betas": np.linspace(1e-3, 0.02, count).tolist()}
    with pytest.raises(ModelError, match=f"has {count} trained_betas and num_train_timesteps 1000; expected"):
        schedule_of(written(tmp_path, _class_name="DDPMScheduler", **config))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}),
        ("DPMSolverSinglestepScheduler", {"num_train_timesteps": 1}),
    ],
    ids=str,
)
def test_other_noise_levels_or_times_than_ddpms_are_refused(tmp_path, name, config):
    with pytest.raises(ModelError, match=f"{name} in .* schedule"):
        schedule_of(written(tmp_path, _class_name=name, **config))


@pytest.mark.parametrize("name", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_a_schedule_that_is_not_of_its_betas_is_not_taken_for_ddpms(tmp_path, name):
    with pytest.raises(ModelError, match=f"{name} .* other noise levels"):
        schedule_of(written(tmp_path, _class_name=name))


# flows

FLOW = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"shift": 3.0},
        {"shift": 3.0, "use_dynamic_shifting": True},
        {"shift": 3.0, "num_train_timesteps": 250},
    ],
    ids=str,
)
def test_a_flows_levels_and_times_are_those_of_diffusers(tmp_path, config):
    schedule = schedule_of(written(tmp_path, _class_name=FLOW, **config))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    np.testing.assert_allclose(schedule.sigma, scheduler.sigmas.numpy()[::-1], rtol=1e-5)
    times = schedule.time(torch.arange(schedule.T))
    np.testing.assert_allclose(times, scheduler.timesteps.numpy()[::-1], rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [{"shift": 0.0}, {"shift": -2.0}, {"shift": float("nan")}, {"shift": "3"}, {"num_train_timesteps": 0}],
    ids=str,
)
def test_an_impossible_flow_is_refused(tmp_path, config):
    with pytest.raises(ModelError, match=r"schedule|shift"):
        schedule_of(written(tmp_path, _class_name=FLOW, **config))
