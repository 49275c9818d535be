"""Cached models: trained once, named by all that determines them, trained again if damaged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater import seeds
from headwater.errors import StorageError
from headwater.examples import Examples
from headwater.models import cache as module
from headwater.models.cache import Training, trained
from headwater.models.train import Recipe, Watch, train
from headwater.models.unet import Network
from headwater.retraining.recipes import recipe

RECIPE = Recipe(steps=4, batch=4, learning_rate=1e-2, checkpoints=2, ema=0.9)


@pytest.fixture(scope="module")
def training(smallest):
    return Training(Network(smallest), RECIPE, 3, np.array([True, False] * 5))


def same(a, b):
    one, two = a.module.state_dict(), b.module.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one) and a.fingerprint == b.fingerprint


def test_a_cached_model_is_the_trained_one_and_is_not_trained_again(
    training, pictures, tmp_path, monkeypatch
):
    examples = pictures(10)
    fresh = trained(training, examples)
    assert same(trained(training, examples, tmp_path), fresh)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert same(trained(training, examples, tmp_path), fresh)


def test_everything_that_determines_a_model_is_in_its_name(training, pictures, smallest):
    examples, name = pictures(10), training.name(pictures(10))
    variants = [
        replace(training, seed=4),
        replace(training, keep=np.array([False, True] * 5)),
        replace(training, keep=None),
        replace(training, recipe=replace(RECIPE, clip=0.5)),
        replace(training, network=Network(smallest | {"time_embedding_dim": 8})),
    ]
    names = {name, training.name(pictures(10, seed=1)), *(variant.name(examples) for variant in variants)}
    assert len(names) == 7
    everything = replace(training, keep=np.ones(10, bool))
    assert everything.name(examples) == replace(training, keep=None).name(examples)


def test_a_network_of_its_own_keeps_its_name():
    """Pinned: models stored before adapters existed are still found."""
    digits = recipe("digits")
    examples = Examples(
        seeds.generator(0, "test pictures").integers(0, 256, size=(10, 8, 8, 1), dtype=np.uint8)
    )
    training = Training(Network(digits.model), digits.training, 3, np.array([True, False] * 5))
    assert training.name(examples) == "8b08b80cc280e6d7a51017bbb4e4891d"


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "NaN"])
def test_a_damaged_model_is_trained_again(training, pictures, tmp_path, damage):
    examples = pictures(10)
    fresh = trained(training, examples, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    cut = {
        "cut short": content[:1000],
        "a flipped bit": content[:-5] + bytes([content[-5] ^ 4]) + content[-4:],
    }
    path.write_bytes(cut.get(damage, content[:-4] + b"\xff\xff\xff\x7f"))
    assert same(trained(training, examples, tmp_path), fresh) and path.read_bytes() == content


def test_a_killed_training_goes_on_from_its_checkpoint_and_a_damaged_one_starts_again(
    training, pictures, tmp_path
):
    examples, steps = pictures(10), []
    fresh = trained(training, examples)
    state = tmp_path / f"{training.name(examples)}.state"

    def stop(step, total):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training.network, examples, RECIPE, 3, keep=training.keep, watch=Watch(state, stop))
    half = state.read_bytes()
    assert same(trained(training, examples, tmp_path), fresh) and not state.exists()
    for path in tmp_path.iterdir():
        path.unlink()
    state.write_bytes(half[:500])
    assert same(trained(training, examples, tmp_path), fresh) and not state.exists()


def test_a_full_disk_is_reported(training, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Could not write"):
        trained(training, pictures(10), tmp_path / "file" / "models")
