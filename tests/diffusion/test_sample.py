"""Samplers against diffusers' schedulers, step for step from the same noise."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm

from headwater import seeds
from headwater.diffusion.sample import conditioned, sample
from headwater.errors import OptionError

BOUNDED = {"rtol": 1e-4, "atol": 1e-4}  # diffusers' ᾱ is a float32 product of up to 1,000 factors


def chain(model, scheduler, x, steps):
    """x after every step of diffusers' scheduler, from its own loop; `[n, steps + 1, c, h, w]`."""
    scheduler.set_timesteps(steps)
    states = [x]
    for t in scheduler.timesteps.tolist():
        with torch.no_grad():
            output = model.predict(x, torch.full((len(x),), t))
        x = scheduler.step(output, t, x).prev_sample
        states.append(x)
    return scheduler.timesteps.tolist(), torch.stack(states, 1)


@pytest.mark.parametrize(
    ("prediction", "steps"), [("epsilon", 50), ("v_prediction", 10), ("sample", 10), ("epsilon", 7)]
)
def test_ddim_is_diffusers_ddim(tiny, smallest, prediction, steps):
    model = tiny(prediction=prediction, **smallest)
    ours = sample(model, range(2), 0, steps=steps, keep_path=True)
    times, expected = chain(
        model, DDIMScheduler(prediction_type=prediction, clip_sample=True), ours.path[:, 0], steps
    )
    assert ours.timesteps.tolist() == [*times, -1]
    torch.testing.assert_close(ours.path, expected, **BOUNDED)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddpm_is_diffusers_ddpm_with_the_same_noise(tiny, smallest, monkeypatch, prediction):
    model, steps = tiny(prediction=prediction, **smallest), 10
    ours = sample(model, range(2), 0, sampler="ddpm", steps=steps, keep_path=True)
    named = iter(
        [
            np.stack([seeds.normal((1, 8, 8), 0, "sample", i, f"step-{t}") for i in range(2)])
            for t in ours.timesteps
        ]
    )
    monkeypatch.setattr(
        scheduling_ddpm, "randn_tensor", lambda *_, **__: torch.as_tensor(next(named)).double()
    )
    scheduler = DDPMScheduler(prediction_type=prediction, timestep_spacing="leading")
    times, expected = chain(model, scheduler, ours.path[:, 0], steps)
    assert ours.timesteps.tolist() == [*times, -1]
    torch.testing.assert_close(ours.path, expected, **BOUNDED)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_does_not_depend_on_its_batch(tiny, sampler):
    model = tiny(classes=3)
    labels = torch.tensor([0, 2, 1, 2])
    all_four, third = (conditioned(model, {"class_labels": rows}) for rows in (labels, labels[2:3]))
    together = sample(model, range(4), 5, sampler=sampler, steps=4, predict=all_four, keep_path=True)
    alone = sample(model, range(2, 3), 5, sampler=sampler, steps=4, predict=third, keep_path=True)
    torch.testing.assert_close(alone.path, together.path[2:3], rtol=0, atol=1e-9)
    torch.testing.assert_close(alone.pictures, together.pictures[2:3], rtol=0, atol=1e-9)


def test_another_seed_label_or_number_makes_another_picture(tiny):
    model = tiny(classes=3)
    zero, one = (conditioned(model, {"class_labels": torch.full((2,), label)}) for label in (0, 1))
    pictures = sample(model, range(2), 0, steps=2, predict=zero).pictures
    for samples in (
        sample(model, range(2), 1, steps=2, predict=zero),
        sample(model, range(2), 0, steps=2, predict=one),
    ):
        assert not torch.allclose(samples.pictures, pictures)
    assert not torch.allclose(pictures[0], pictures[1])


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_path_starts_with_named_noise_and_ends_with_the_picture(tiny, sampler):
    samples = sample(tiny(), range(3, 5), 7, sampler=sampler, steps=4, keep_path=True)
    assert samples.path.shape == (2, 5, 1, 8, 8)
    assert samples.timesteps.tolist() == [750, 500, 250, 0, -1]
    assert np.array_equal(
        samples.path[1, 0].float().numpy(), seeds.normal((1, 8, 8), 7, "sample", 4, "start")
    )
    assert torch.equal(samples.path[:, -1], samples.pictures)
    assert samples.pictures.abs().max() <= 1  # the last step gives the clipped picture


def test_without_keep_path_there_is_none(tiny):
    assert sample(tiny(), range(1), 0, steps=1).path is None


def test_every_step_is_reported(tiny):
    reports = []
    sample(tiny(), range(1), 0, steps=3, on_step=lambda step, total: reports.append((step, total)))
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_the_global_generator_is_untouched(tiny):
    model, before = tiny(), torch.get_rng_state()
    sample(model, range(1), 0, sampler="ddpm", steps=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "euler"}, "euler.*ddim or ddpm"),
        ({"steps": 0}, "steps is 0.*1 to 1000"),
        ({"steps": 1001}, "1001.*1 to 1000"),
    ],
)
def test_impossible_options_are_refused(tiny, options, said):
    with pytest.raises(OptionError, match=said):
        sample(tiny(), range(1), 0, **options)
