"""Half precision: features near those of float32, stored apart from them, and overflow is an error."""

import sys

import numpy as np
import pytest
import torch

from headwater.cli.commands import main
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.disk.store import FeatureStore
from headwater.errors import NonFiniteError, OptionError
from headwater.gradients import hooks
from headwater.gradients.features import features
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Dense, Identity, Sparse, TwoSided
from headwater.models import unet
from headwater.models.generate import Sampling
from headwater.models.generate import pictures as generated
from headwater.models.loading import load

COSINE = {"bfloat16": 0.99, "float16": 0.9999}  # at least, between a picture's features and those in float32


@pytest.fixture
def saved(tmp_path, tiny):
    unet.save_pipeline(tiny(torch.float32), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", COSINE)
@pytest.mark.parametrize(
    "project", [Sparse(64), TwoSided(64), Dense(64), Identity()], ids=lambda project: type(project).__name__
)
@pytest.mark.parametrize("name", ["simple", "elbo", "square"])
def test_features_of_half_precision_are_near_those_of_float32(
    saved, pictures, tmp_path, dtype, project, name
):
    examples, store = pictures(4), FeatureStore(tmp_path / "store")
    single, half = (
        features(load(saved, dtype=kind), examples, GradientSpec(name, Draws(5)), project, store)
        for kind in ("float32", dtype)
    )
    cosine = (single * half).sum(1) / np.linalg.norm(single, axis=1) / np.linalg.norm(half, axis=1)
    assert not np.array_equal(single, half) and cosine.min() > COSINE[dtype]
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), np.linalg.norm(single, axis=1), rtol=0.05)


def test_features_of_two_dtypes_are_never_mixed_in_the_store(saved, pictures, tmp_path):
    examples, store = pictures(3), FeatureStore(tmp_path / "store")

    def rows(dtype, where):
        return features(
            load(saved, dtype=dtype), examples, GradientSpec("simple", Draws(2)), Sparse(32), where
        )

    by_dtype = {dtype: rows(dtype, store) for dtype in ("float32", "bfloat16", "float16")}
    for dtype, block in by_dtype.items():
        assert np.array_equal(block, rows(dtype, store))
        assert np.array_equal(block, rows(dtype, FeatureStore(tmp_path / dtype)))
    assert len({load(saved, dtype=dtype).fingerprint for dtype in by_dtype}) == 3


def test_layers_pass_on_float32_and_leave_the_inputs_unchanged(saved, pictures):
    """The sides of a layer's gradient in float32, whatever the network's dtype: float16 would lose small
    ones."""
    model = load(saved, dtype="float16")
    inputs, sides = drawn(model, pictures(2), slice(2), measurement("simple"), Draws(2)), []
    hooks.stream(
        model, measurement("simple"), inputs, layers_of(model), lambda gradient: sides.extend(gradient.sides)
    )
    assert sides and all(g.dtype == torch.float32 for _, g in sides)
    assert {a.dtype for a, _ in sides} == {torch.float32}
    assert inputs.draw.x_t.dtype == torch.float32


def test_gradients_too_small_for_float16_are_not_lost(saved, pictures):
    """A measurement times 2⁻³⁰ has a gradient times 2⁻³⁰."""
    model, examples, plain = load(saved, dtype="float16"), pictures(2), measurement("simple")

    def little(output, draw, schedule):
        return plain(output, draw, schedule) * 2.0**-30

    large, small = (next(hooks.gradients(model, examples, measure, Draws(2))) for measure in (plain, little))
    assert torch.equal(small * 2.0**30, large) and large.abs().max() > 0


@pytest.fixture
def overflowing(saved):
    """Weights that float16 holds, and whose products it does not."""
    model = load(saved)
    with torch.no_grad():
        for layer in (model.module.conv_in, model.module.conv_out):
            layer.weight.mul_(3000 / layer.weight.abs().max())
        for name, p in model.module.named_parameters():
            if name.startswith("conv_norm_out"):
                p.fill_(300.0)
    unet.save_pipeline(model, saved)
    return saved


def test_an_overflow_is_reported_with_picture_timestep_and_dtype(overflowing, pictures, tmp_path):
    store = FeatureStore(tmp_path / "store")
    message = r"not finite for image \S+ at timestep \d+, of weights in float16.*Use float32"
    with pytest.raises(NonFiniteError, match=message):
        features(
            load(overflowing, dtype="float16"),
            pictures(2),
            GradientSpec("simple", Draws(2)),
            Sparse(32),
            store,
        )
    for dtype in ("float32", "bfloat16"):
        assert np.isfinite(
            features(
                load(overflowing, dtype=dtype),
                pictures(2),
                GradientSpec("simple", Draws(2)),
                Sparse(32),
                store,
            )
        ).all()


def test_pictures_that_overflow_are_reported(overflowing):
    with pytest.raises(
        NonFiniteError, match="pictures 0 to 1 there is NaN or infinity, of weights in float16"
    ):
        generated(load(overflowing, dtype="float16"), 2)


def test_sampling_in_half_precision_makes_nearly_the_same_pictures(saved):
    single, half = (
        generated(load(saved, dtype=dtype), 2, sampling=Sampling(steps=5)).images
        for dtype in ("float32", "float16")
    )
    assert 0.99 < np.corrcoef(single.ravel(), half.ravel())[0, 1] < 1


def test_another_dtype_is_reported(saved):
    with pytest.raises(OptionError, match="no dtype 'half'"):
        load(saved, dtype="half")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "--data", "digits", "--out", "m", "--dtype", "bfloat16"],
            "all weights are trained, in float32",
        ),
        (
            ["train", "--data", "digits", "--out", "m", "--lora", "--model", "m", "--dtype", "float16"],
            "expected bfloat16",
        ),
        (
            [
                "attribute",
                "--method",
                "trak",
                "--out",
                "r",
                "--bank",
                "digits",
                "--ensemble",
                "1",
                "--dtype",
                "float16",
            ],
            "are float32",
        ),
    ],
)
def test_where_half_precision_makes_no_sense_it_is_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["headwater", *words])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
