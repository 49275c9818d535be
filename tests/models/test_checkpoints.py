"""A model from its folder brings its checkpoints to the methods that go along training, however it was
opened."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import headwater
import tiny_pipelines
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.inner import AlongTraining
from headwater.methods.gas import GAS
from headwater.methods.gradient import Gradient
from headwater.methods.tracin import TracIn
from headwater.models import lora
from headwater.models.adapters import Tuning
from headwater.models.loading import load

PROMPTS = ("a cat", "a dog", "a cat")
FEW = {"timesteps": 1, "k": 16}


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def images(side=16, **columns):
    random = np.random.Generator(np.random.Philox(1))
    return Examples(random.integers(0, 256, (3, side, side, 3), dtype=np.uint8), **columns)


def moved(module, seed, pattern=""):
    """The network a step further in training."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if pattern in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw)


MAKERS = {
    "stable": lambda words: tiny_pipelines.stable(words),
    "latent": lambda words: tiny_pipelines.latent(),
    "dit": lambda words: tiny_pipelines.dit(),
    "sd3": lambda words: tiny_pipelines.sd3(words),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of each family with two checkpoints of the network alone, and of adapters; the last is the
    model."""
    root = tmp_path_factory.mktemp("trained")
    for family, make in MAKERS.items():
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            pipeline: DiffusionPipeline = make(root / "words")
        part = "unet" if family in ("stable", "latent") else "transformer"
        module = getattr(pipeline, part)
        for step in (1, 2):
            moved(module, step)
            module.save_pretrained(root / family / "checkpoints" / f"step-{step}" / part)
        pipeline.save_pretrained(root / family)
    model = load(root / "stable")
    lora.add(model.module, 2, seed=0)
    for step in (1, 2):
        moved(model.module, step, "lora_")
        lora.save_adapters(model.module, root / "lora" / "checkpoints" / f"step-{step}", "unet")
    lora.save_adapters(model.module, root / "lora", "unet")
    lora.write_base(root / "lora", lora.Base(str(root / "stable"), (16, 16)))
    return root


def columns(family):
    if family in ("stable", "sd3", "lora"):
        return {"prompts": PROMPTS}
    return {"labels": np.array([0, 2, 1])} if family == "dit" else {}


@pytest.mark.parametrize("family", [*MAKERS, "lora"])
@pytest.mark.parametrize(
    "method", [TracIn(**FEW, checkpoints=2), GAS(**FEW, checkpoints=2)], ids=["tracin", "gas"]
)
def test_a_loaded_model_is_scored_at_its_checkpoints(trained, store, family, method: AlongTraining):
    train = images(**columns(family))
    notes = []
    opened = load(trained / family)
    assert opened.checkpoints == ()  # not before they are needed
    scores = headwater.attribute(opened, train, train, method=method, store=store, warn=notes.append).values
    assert notes == []
    eager = load(trained / family, checkpoints=2)
    one, two = eager.checkpoints
    assert one.fingerprint != two.fingerprint == eager.fingerprint == opened.fingerprint
    for model in (eager, trained / family):
        again = headwater.attribute(model, train, train, method=method, store=store).values
        assert np.array_equal(again, scores)
    if isinstance(method, TracIn):
        parts = [
            headwater.attribute(stage, train, train, method=Gradient(**FEW), store=store).values
            for stage in (one, two)
        ]
        np.testing.assert_allclose(
            scores, np.mean(parts, axis=0), rtol=1e-4, atol=1e-6 * np.abs(scores).max()
        )
        assert not np.allclose(scores, parts[1], rtol=1e-2)


def test_checkpoints_share_the_encoders_the_memory_and_the_size_of_their_model(trained):
    model = replace(load(trained / "stable", size=(24, 32)), memory=12345).with_checkpoints(2)
    assert len(model.checkpoints) == 2
    for stage in model.checkpoints:
        assert stage.latent is model.latent and stage.text is model.text
        assert (stage.shape, stage.memory) == ((2, 12, 16), 12345)


def test_a_network_trained_further_does_not_bring_its_bases_checkpoints(trained, store):
    tuning = Tuning(load(trained / "stable"), store, 2)
    assert tuning.finished(tuning.fresh(0)).with_checkpoints(2).checkpoints == ()


def test_without_checkpoints_the_final_model_is_used_and_a_note_says_so(trained, store):
    step, notes = trained / "lora" / "checkpoints" / "step-2", []
    train = images(**columns("lora"))
    model = load(trained / "stable", lora=step)
    method = TracIn(**FEW, checkpoints=2)
    scores = headwater.attribute(model, train, train, method=method, store=store, warn=notes.append).values
    alone = headwater.attribute(model, train, train, method=Gradient(**FEW), store=store).values
    np.testing.assert_allclose(scores, alone)
    assert len(notes) == 1 and "The model has no checkpoints of its own" in notes[0]
    notes.clear()
    headwater.attribute(model, train, train, method=Gradient(**FEW), store=store, warn=notes.append)
    assert notes == []
