"""What a network is shown and told, and in which units: more than is given, or units that nobody knows, are
refused or noted when the model is opened."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiTTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)

from headwater.errors import ModelError
from headwater.models.loading import load, notes_on

PARTS = {
    "stable": ("unet", UNet2DConditionModel),
    "latent": ("unet", UNet2DModel),
    "dit": ("transformer", DiTTransformer2DModel),
    "sd3": ("transformer", SD3Transformer2DModel),
}
WIDTH = {"projection_class_embeddings_input_dim": 4}
MORE = [
    ("stable", {"num_class_embeds": 10}, "num_class_embeds is 10"),
    ("stable", {"class_embed_type": "timestep"}, "class_embed_type is timestep"),
    ("stable", {"class_embed_type": "identity"}, "class_embed_type is identity"),
    ("stable", {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}, "projection"),
    (
        "stable",
        {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 4},
        "simple",
    ),
    (
        "stable",
        {"addition_embed_type": "text", "addition_embed_type_num_heads": 2},
        "addition_embed_type is text",
    ),
    ("stable", {"addition_embed_type": "image", "encoder_hid_dim": 8}, "addition_embed_type is image"),
    ("stable", {"time_cond_proj_dim": 8}, "time_cond_proj_dim is 8"),
    ("stable", {"encoder_hid_dim": 8, "encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type is image"),
    ("stable", {"encoder_hid_dim": 8, "encoder_hid_dim_type": "text_image_proj"}, "is text_image_proj"),
    ("stable", {"attention_type": "gated"}, "attention_type is gated"),
    ("stable", {"attention_type": "gated-text-image"}, "attention_type is gated-text-image"),
    ("stable", {"in_channels": 5}, "shown 5 channels and predicts 2"),
    ("stable", {"in_channels": 4, "out_channels": 4}, "latents of 2 channels; the network takes 4"),
    ("stable", {"out_channels": 4}, "predicts 4 channels for pictures of 2"),
    ("latent", {"class_embed_type": "timestep"}, "class_embed_type is timestep"),
    ("latent", {"class_embed_type": "identity"}, "class_embed_type is identity"),
    ("latent", {"time_embedding_type": "fourier"}, "time_embedding_type is fourier"),
    ("latent", {"in_channels": 4}, "shown 4 channels and predicts 2"),
    ("dit", {"out_channels": 6}, "predicts 6 channels for pictures of 2"),
    ("dit", {"in_channels": 4, "out_channels": 2}, "shown 4 channels and predicts 2"),
    ("sd3", {"in_channels": 4}, "shown 4 channels and predicts 2"),
]


def changed(pipelines, family, folder, **changes):
    """A copy of the pipeline with a network of another configuration."""
    shutil.copytree(pipelines / family, folder)
    part, kind = PARTS[family]
    config = kind.load_config(folder / part, local_files_only=True)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        network = kind.from_config({**config, **changes})
    shutil.rmtree(folder / part)
    network.save_pretrained(folder / part)
    return folder


@pytest.mark.parametrize(("family", "changes", "message"), MORE, ids=str)
def test_a_network_that_takes_more_than_it_is_given_is_refused(pipelines, tmp_path, family, changes, message):
    folder = changed(pipelines, family, tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=message) as raised:
        load(folder)
    assert len(str(raised.value)) < 400


def test_a_projection_of_the_text_alone_is_taken(pipelines, tmp_path):
    folder = changed(pipelines, "stable", tmp_path / "model", encoder_hid_dim=8, cross_attention_dim=12)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    model, x, t = load(folder), torch.ones(1, 2, 8, 8), torch.tensor([7])
    prompt = model.text.embed(["a cat"])
    with torch.no_grad():
        torch.testing.assert_close(model.predict(x, t, prompt), pipeline.unet(x, t, **prompt).sample)


@pytest.mark.parametrize("predicted", [None, 2])
def test_a_dit_without_variances_is_taken(pipelines, tmp_path, predicted):
    assert load(changed(pipelines, "dit", tmp_path / "model", out_channels=predicted)).shape == (2, 8, 8)


# units of latents

BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "latent_channels": 2,
    "norm_num_groups": 4,
}
ENCODERS = {
    "VQModel": lambda: VQModel(**BLOCKS, num_vq_embeddings=16),
    "AutoencoderKL": lambda: AutoencoderKL(**BLOCKS),
    "AutoencoderTiny": lambda: AutoencoderTiny(
        latent_channels=2,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
}


def encoded_by(pipelines, family, folder, encoder, without=("scaling_factor",), **units):
    """A copy of the pipeline with another auto-encoder, whose config leaves out what is in `without`."""
    shutil.copytree(pipelines / family, folder)
    index = json.loads((folder / "model_index.json").read_text())
    part = "vqvae" if "vqvae" in index else "vae"
    shutil.rmtree(folder / part)
    ENCODERS[encoder]().save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps(index | {part: ["diffusers", encoder]}))
    path = folder / part / "config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name not in without}
    path.write_text(json.dumps(config | units))
    return folder


@pytest.mark.parametrize(
    ("family", "encoder", "scale", "is_noted"),
    [
        ("latent", "VQModel", 1.0, True),  # as LDM was trained, before diffusers had a name for it
        ("latent", "AutoencoderKL", 0.18215, True),
        ("latent", "AutoencoderTiny", 1.0, False),
        ("stable", "AutoencoderKL", 0.18215, False),  # as in the config of Stable Diffusion 1.5
        ("stable", "VQModel", 1.0, True),
        ("dit", "AutoencoderKL", 0.18215, False),
        ("sd3", "AutoencoderKL", 0.18215, True),
    ],
)
def test_a_scale_that_is_not_said_is_the_right_one_or_noted(
    pipelines, tmp_path, family, encoder, scale, is_noted
):
    folder = encoded_by(pipelines, family, tmp_path / "model", encoder)
    assert load(folder).latent.scale == scale
    notes = [note for note in notes_on(folder) if f"scaling_factor ({scale:g} is assumed)" in note]
    assert len(notes) == is_noted


def test_a_shift_that_is_not_said_is_noted_where_networks_have_one(pipelines, tmp_path):
    for family, is_noted in (("sd3", True), ("stable", False)):
        folder = encoded_by(
            pipelines, family, tmp_path / family, "AutoencoderKL", ("shift_factor",), scaling_factor=0.3
        )
        assert load(folder).latent.shift == 0.0
        assert any("no shift_factor (0 is assumed)" in note for note in notes_on(folder)) == is_noted


@pytest.mark.parametrize("family", ["latent", "stable", "dit", "sd3"])
def test_a_scale_that_is_said_is_taken_without_a_note(pipelines, family):
    assert not notes_on(pipelines / family)
    assert np.isclose(load(pipelines / family).latent.scale, 0.18215 if family == "latent" else 0.3)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"scaling_factor": 0.0}, "scaling_factor 0.0"),
        ({"scaling_factor": float("nan")}, "scaling_factor nan"),
        ({"scaling_factor": "0.2"}, "scaling_factor 0.2"),
        ({"shift_factor": float("inf")}, "shift_factor inf"),
        ({"latents_mean": [0.1, 0.2]}, "latents_mean"),
        ({"latents_std": [0.1, 0.2]}, "latents_std"),
    ],
    ids=str,
)
def test_units_that_cannot_be_are_refused(pipelines, tmp_path, units, message):
    folder = encoded_by(pipelines, "stable", tmp_path / "model", "AutoencoderKL", without=(), **units)
    with pytest.raises(ModelError, match=message):
        load(folder)
