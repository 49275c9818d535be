"""Each family of networks: the same prediction as the pipeline it comes from, and hooks that give the slow
engine's gradients."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    VQModel,
)

import tiny_pipelines
from headwater.attribution.attribute import attribute
from headwater.cli.commands import main
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import encoded, posteriors
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import conditioned, sample
from headwater.disk.npz import write_examples
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, DataWarning, ModelError, OptionError
from headwater.examples import Examples
from headwater.gradients import hooks, vmap
from headwater.methods import make
from headwater.methods.dtrak import DTRAK
from headwater.models import lora
from headwater.models.adapters import Tuning, lora_tuning
from headwater.models.generate import Sampling
from headwater.models.loading import load
from headwater.models.train import LORA, Recipe, train
from headwater.scores import dense
from headwater.workers import Pool

WORDS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
NONE = dict.fromkeys(("image_encoder", "feature_extractor", "text_encoder_3", "tokenizer_3"))
PROMPTS = ("a cat", "a dog", "a cat")


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def images(n=3, **columns):
    random = np.random.Generator(np.random.Philox(1))
    return Examples(random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), **columns)


def columns(family):
    return (
        {"prompts": PROMPTS}
        if family in ("stable", "sd3")
        else {"labels": np.array([0, 2, 1])}
        if family == "dit"
        else {}
    )


FAMILIES = ["stable", "latent", "dit", "sd3"]


def inputs_of(model, family, store):
    return encoded(model, images(**columns(family)), store)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["simple", "square"])
def test_hooks_give_the_gradients_of_the_slow_engine(pipelines, store, family, name):
    model = load(pipelines / family)
    model.module.double()
    examples, draws = inputs_of(model, family, store), Draws((5, 500))
    measure = measurement(name)
    slow = torch.cat(list(vmap.gradients(model, examples, measure, draws)))
    fast = torch.cat(list(hooks.gradients(model, examples, measure, draws)))
    assert slow.abs().max() > 0
    torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9 * float(slow.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_has_the_shape_of_its_latents_and_pictures(pipelines, store, family):
    model = load(pipelines / family)
    assert model.shape == (2, 8, 8) and model.pictures == (3, 16, 16)
    examples = inputs_of(model, family, store)
    assert examples.inputs().shape == (3, 2, 8, 8) and examples.shape == (3, 16, 16)
    assert model.fingerprint == load(pipelines / family).fingerprint


def test_stable_diffusion_predicts_as_its_pipeline(pipelines):
    """Without guidance: one step of the pipeline's own loop, its network watched."""
    model, pipeline = (
        load(pipelines / "stable"),
        StableDiffusionPipeline.from_pretrained(pipelines / "stable", safety_checker=None),
    )
    outputs = watched(pipeline.unet)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    pipeline(list(PROMPTS[:2]), num_inference_steps=1, guidance_scale=1.0, latents=x, output_type="latent")
    with torch.no_grad():
        ours = model.predict(x, torch.full((2,), 1), model.text.embed(PROMPTS[:2]))
    torch.testing.assert_close(ours, outputs[0], rtol=0, atol=1e-6)


def test_stable_diffusion_samples_as_its_pipeline_with_guidance(pipelines):
    model, pipeline = (
        load(pipelines / "stable"),
        StableDiffusionPipeline.from_pretrained(pipelines / "stable", safety_checker=None),
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, steps_offset=0)
    prompt = model.text.embed(["a cat"])
    noise = sample(model, range(1), 3, steps=5, predict=conditioned(model, prompt), keep_path=True).path[:, 0]
    expected = pipeline(
        ["a cat"], num_inference_steps=5, guidance_scale=4.0, latents=noise, output_type="latent"
    ).images
    ours = sample(model, range(1), 3, steps=5, predict=conditioned(model, prompt, 4.0)).pictures
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_dit_predicts_as_its_pipeline(pipelines):
    model, pipeline = load(pipelines / "dit"), DiTPipeline.from_pretrained(pipelines / "dit")
    x, t, labels = (
        torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([7, 600]),
        torch.tensor([2, 0]),
    )
    with torch.no_grad():
        expected = pipeline.transformer.eval()(x, timestep=t, class_labels=labels).sample[:, :2]
        ours = model.predict(x, t, {"class_labels": labels})
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert model.classes == 3


def test_stable_diffusion_3_predicts_as_its_pipeline(pipelines):
    model, pipeline = (
        load(pipelines / "sd3"),
        StableDiffusion3Pipeline.from_pretrained(pipelines / "sd3", **NONE),
    )
    outputs = watched(pipeline.transformer)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = {
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "latents": x,
        "output_type": "latent",
        "height": 16,
        "width": 16,
    }
    pipeline(list(PROMPTS[:2]), **settings)
    sigma = float(pipeline.scheduler.sigmas[0])
    assert model.schedule.beta[-1] == pytest.approx(
        sigma
    )  # its first step is at the schedule's last timestep
    with torch.no_grad():
        ours = model.predict(x, torch.full((2,), 999), model.text.embed(PROMPTS[:2]))
    torch.testing.assert_close(ours, outputs[0], rtol=0, atol=1e-6)


def watched(network):
    """The list of a network's further outputs."""
    outputs = []
    network.register_forward_hook(
        lambda module, args, output: outputs.append(output[0] if isinstance(output, tuple) else output.sample)
    )
    return outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_are_those_of_the_pipelines_auto_encoder_in_its_units(pipelines, store, family):
    model, examples = load(pipelines / family), images(**columns(family))
    kind, part = (VQModel, "vqvae") if family == "latent" else (AutoencoderKL, "vae")
    vae = kind.from_pretrained(pipelines / family, subfolder=part)
    with torch.no_grad():
        encoding = vae.encode(torch.as_tensor(examples.pixels()))
        raw = encoding.latents if family == "latent" else encoding.latent_dist.mode()
        decoded = vae.decode(raw).sample
    shift = vae.config.get("shift_factor") or 0.0
    latents = torch.as_tensor(encoded(model, examples, store).latents)
    torch.testing.assert_close(latents, (raw - shift) * vae.config.scaling_factor, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model.latent.decode(latents), decoded, rtol=1e-4, atol=1e-5)


def test_the_latents_of_a_mirror_image_are_not_the_flipped(pipelines, store):
    model, examples = load(pipelines / "stable"), images(prompts=PROMPTS)
    mirror = Examples(np.ascontiguousarray(examples.images[:, :, ::-1]), prompts=PROMPTS)
    flipped = posteriors(model, examples, store, mirrored=True)
    np.testing.assert_allclose(flipped, posteriors(model, mirror, store), rtol=1e-5, atol=1e-6)
    assert np.abs(flipped[:, 0] - posteriors(model, examples, store)[:, 0, :, :, ::-1]).max() > 1e-3


def test_latents_and_prompts_are_encoded_once(pipelines, store, monkeypatch):
    model, examples = load(pipelines / "stable"), images(prompts=PROMPTS)
    first = encoded(model, examples, store)
    calls = []
    monkeypatch.setattr(type(model.latent), "encode", lambda self, pixels: calls.append(len(pixels)))
    again = encoded(model, examples, store)
    assert not calls
    assert np.array_equal(first.latents, again.latents)
    assert first.text.which.tolist() == [0, 1, 0] and len(first.text.tables["encoder_hidden_states"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trak", "ek-fac"])
def test_other_processes_compute_the_same_scores(pipelines, tmp_path, method):
    """A text encoder cannot be pickled: it has done its part before."""
    method, scores = make(method, {"timesteps": 1} | ({} if "fac" in method else {"k": 8})), []
    for crew in (None, Pool(1)):
        store = FeatureStore(tmp_path / str(crew), crew=crew)
        model = load(pipelines / "stable")
        examples = inputs_of(model, "stable", store)
        index = method.fit(model, examples, store)
        scores.append(dense(method.score(index, examples, store)))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3, atol=1e-5 * np.abs(scores[0]).max())


def test_the_prompt_is_part_of_the_key_of_features(pipelines, store):
    model = load(pipelines / "stable")
    one, two = (encoded(model, images(1, prompts=(prompt,)), store) for prompt in ("a cat", "a dog"))
    assert one.hashes == two.hashes and one.keys != two.keys


def test_missing_prompts_are_reported_before_anything_is_computed(pipelines, store):
    from headwater import Pixel, attribute

    with pytest.raises(DataError, match=r"conditioned on prompts.*none.*`caption`"):
        attribute(load(pipelines / "stable"), images(), images(), method=Pixel(), store=store)


@pytest.mark.parametrize("name", ["nda", "optimal-score"])
def test_latents_are_compared_with_those_of_the_images_and_of_their_mirror_images(pipelines, store, name):
    """A training image leads for itself, with flips also for its mirror image; pixels have other scores."""
    model = load(pipelines / "stable")
    train = images(4, prompts=("a",) * 4)
    queries = replace(train.take([2]), images=train.images[[2], :, ::-1])
    fields = {"space": "latents", "timesteps": (10,), "noises": 0}

    def scores(queries, **changes):
        method, shown = make(name, fields | changes), encoded(model, train, store)
        return dense(method.score(method.fit(model, shown, store), encoded(model, queries, store), store))[0]

    assert scores(train.take([2])).argmax() == 2
    with_flips, without = scores(queries, flips=True), scores(queries)
    assert with_flips.argmax() == 2 and with_flips[2] > 1.5 * without[2]
    assert not np.allclose(scores(train.take([2]), space="pixels"), scores(train.take([2])))


def test_latents_without_an_auto_encoder_are_refused(store):
    with pytest.raises(DataError, match="There are no latents to compare"):
        make("nda", {"space": "latents"}).fit(None, images(3), store)
    with pytest.raises(OptionError, match="no space 'latent'"):
        make("pixel", {"space": "latent"})


def test_maps_of_latents_lie_in_the_picture(pipelines, store):
    model, train = load(pipelines / "stable"), images(4, prompts=("a",) * 4)
    shown = encoded(model, train, store)
    method = make("nda", {"space": "latents", "timesteps": (10,)})
    found = method.regions(method.fit(model, shown, store), shown, store, [1])
    assert found.images[0, 0] == 1 and found.sides.tolist() == [*model.shape[1:]]
    explained = found.here[0].sum(0)
    np.testing.assert_allclose(explained[1:-1, 1:-1], 1, atol=1e-3)
    assert explained.max() < 1.001


def test_a_flow_has_no_bound_and_no_ddpm(pipelines, store):
    model = load(pipelines / "sd3")
    with pytest.raises(OptionError, match="'elbo'"):
        list(vmap.gradients(model, inputs_of(model, "sd3", store), measurement("elbo"), Draws((5,))))
    with pytest.raises(OptionError, match="'ddpm'"):
        sample(model, range(1), 0, sampler="ddpm", steps=2)


def test_numbers_that_cannot_be_are_refused_before_anything_runs(pipelines, store):
    with pytest.raises(OptionError, match="guidance is nan; expected a finite number"):
        Sampling(guidance=float("nan"))
    with pytest.raises(OptionError, match="rank is 0; expected 1 or more"):
        Tuning(load(pipelines / "stable"), store, 0)


def test_pictures_of_another_size_are_taken_by_networks_of_any_size(pipelines):
    assert load(pipelines / "stable", size=(24, 32)).shape == (2, 12, 16)
    assert load(pipelines / "dit", size=(24, 32)).shape == (2, 8, 8)
    with pytest.raises(ModelError, match="multiples of 2"):
        load(pipelines / "stable", size=(25, 32))


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer"])
def test_a_missing_component_is_named(pipelines, tmp_path, part):
    shutil.copytree(pipelines / "stable", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    if part == "vae":  # without it the network would be taken for one of pixels
        with pytest.raises(ModelError, match="has no vae"):
            load(tmp_path / "model")
    else:
        with pytest.raises(ModelError, match=f"has no {part}"):
            load(tmp_path / "model")


def test_code_of_a_models_own_is_refused(pipelines, tmp_path):
    shutil.copytree(pipelines / "stable", tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"unet": ["my_unet", "MyUNet"]}))
    with pytest.raises(ModelError, match="never runs code"):
        load(tmp_path / "model")


def test_pickled_weights_of_a_text_encoder_are_refused(pipelines, tmp_path):
    shutil.copytree(pipelines / "stable", tmp_path / "model")
    (tmp_path / "model" / "text_encoder" / "model.safetensors").rename(
        tmp_path / "model" / "text_encoder" / "pytorch_model.bin"
    )
    with pytest.raises(ModelError, match="pickled"):
        load(tmp_path / "model")


# LoRA


@pytest.fixture
def tuned(pipelines):
    """A base with adapters whose B is no longer 0."""
    model = load(pipelines / "stable")
    lora.add(model.module, 2, seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_adapters_are_the_only_parameters_and_features_are_of_them(pipelines, tuned, store, tmp_path):
    lora.save_adapters(tuned.module, tmp_path / "lora", "unet")
    model = load(pipelines / "stable", lora=tmp_path / "lora")
    names = list(model.parameters())
    assert names and all("lora_" in name for name in names)
    model.module.double()
    examples, draws, measure = inputs_of(model, "stable", store), Draws((5, 500)), measurement("simple")
    slow = torch.cat(list(vmap.gradients(model, examples, measure, draws)))
    fast = torch.cat(list(hooks.gradients(model, examples, measure, draws)))
    torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9 * float(slow.abs().max()))


@pytest.mark.parametrize("pattern", ["*attn2*", "mid_block*|up_blocks*"])
def test_a_pattern_selects_adapters(pipelines, tuned, store, pattern):
    tuned.module.double()
    chosen = list(tuned.parameters(pattern))
    assert 0 < len(chosen) < len(tuned.parameters()) and all("lora_" in name for name in chosen)
    examples, draws, measure = inputs_of(tuned, "stable", store), Draws((5,)), measurement("simple")
    everything, part = (
        torch.cat(list(hooks.gradients(tuned, examples, measure, draws, pattern=p))) for p in ("*", pattern)
    )
    sizes = [p.numel() for p in tuned.parameters().values()]
    mask = torch.cat(
        [torch.full((size,), name in chosen) for name, size in zip(tuned.parameters(), sizes, strict=True)]
    )
    torch.testing.assert_close(part, everything[:, mask], rtol=1e-9, atol=1e-12)


def test_saved_adapters_load_in_diffusers_and_here_to_the_same_prediction(pipelines, tuned, tmp_path):
    lora.save_adapters(tuned.module, tmp_path / "lora", "unet")
    pipeline = StableDiffusionPipeline.from_pretrained(pipelines / "stable", safety_checker=None)
    pipeline.load_lora_weights(tmp_path / "lora")
    x, t = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 600])
    model = load(pipelines / "stable", lora=tmp_path / "lora")
    prompts = model.text.embed(PROMPTS[:2])
    with torch.no_grad():
        expected = tuned.predict(x, t, prompts)
        assert torch.equal(model.predict(x, t, prompts), expected)
        torch.testing.assert_close(pipeline.unet(x, t, **prompts).sample, expected, rtol=0, atol=1e-6)
        assert not torch.allclose(load(pipelines / "stable").predict(x, t, prompts), expected, atol=1e-3)


def test_adapters_that_diffusers_saved_load_here(pipelines, tuned, tmp_path):
    from peft import get_peft_model_state_dict

    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(tuned.module)
    )
    x, t = torch.ones(1, 2, 8, 8), torch.tensor([7])
    model = load(pipelines / "stable", lora=tmp_path / "lora")
    with torch.no_grad():
        prompt = model.text.embed(["a cat"])
        assert torch.equal(model.predict(x, t, prompt), tuned.predict(x, t, prompt))


def test_adapters_of_another_base_are_refused(pipelines, tuned, tmp_path):
    lora.save_adapters(tuned.module, tmp_path / "lora", "unet")
    with pytest.raises(ModelError, match="holds weights of unet; expected those of the transformer only"):
        load(pipelines / "sd3", lora=tmp_path / "lora")
    shutil.copytree(pipelines / "stable", tmp_path / "wide")
    wide = UNet2DConditionModel.from_config(
        UNet2DConditionModel.load_config(pipelines / "stable" / "unet") | {"block_out_channels": [16, 16]}
    )
    shutil.rmtree(tmp_path / "wide" / "unet")
    wide.save_pretrained(tmp_path / "wide" / "unet")
    with pytest.raises(ModelError, match="trained on another model"):
        load(tmp_path / "wide", lora=tmp_path / "lora")


def test_a_folder_without_adapters_is_reported(pipelines, tmp_path):
    Path(tmp_path / "bare").mkdir()
    with pytest.raises(ModelError, match=r"no pytorch_lora_weights.safetensors"):
        load(pipelines / "stable", lora=tmp_path / "bare")


def test_a_bare_network_without_a_scheduler_has_the_linear_schedule(pipelines, tmp_path):
    shutil.copytree(pipelines / "latent" / "unet", tmp_path / "unet")
    model = load(tmp_path / "unet")
    np.testing.assert_allclose(model.schedule.beta, DDPMScheduler().betas.double().numpy(), rtol=1e-5)
    assert model.latent is None


def test_from_captions_to_credit_by_the_command_line(pipelines, tmp_path, monkeypatch, capsys):
    """Adapters trained on two studios' pictures, pictures of prompts, and their attribution."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path / "store"))
    base = str(pipelines / "stable")
    np.savez("train.npz", images=images(8).images, groups=np.array(["one", "other"] * 4))
    data = ["--data", "train.npz", "--caption", "a {group} p", "--model", base, "--lora", "--rank", "2"]
    ran("train", *data, "--epochs", "2", "--batch", "4", "--checkpoints", "2", "--out", "lora")
    weights = Path("lora/pytorch_lora_weights.safetensors").read_bytes()
    ran("train", *data, "--epochs", "2", "--batch", "4", "--checkpoints", "2", "--out", "lora")
    assert Path("lora/pytorch_lora_weights.safetensors").read_bytes() == weights
    assert json.loads(Path("lora/base.json").read_text()) == {"base": base, "size": [16, 16]}
    assert load("lora", checkpoints=2).fingerprint == load(base, lora="lora").fingerprint
    assert "another training run" in refused(capsys, "train", *data, "--epochs", "3", "--out", "lora")
    options = ["--prompt", "a one p", "--prompt", "a other p", "--guidance", "2", "--steps", "3"]
    ran("sample", base, "--lora", "lora", "--count", "3", *options, "--out", "q.npz")
    with np.load("q.npz") as queries:
        assert queries["prompts"].tolist() == ["a one p", "a other p", "a one p"]
        assert queries["latents"].shape == (3, 2, 8, 8)
    sources = [
        "--model",
        base,
        "--lora",
        "lora",
        "--train",
        "train.npz",
        "--caption",
        "a {group} p",
        "--query",
        "q.npz",
    ]
    for method in ("d-trak", "k-fac", "pixel", "nda"):
        ran(
            "attribute",
            *sources,
            "--method",
            method,
            *([] if method in ("pixel", "nda") else ["--set", "timesteps=2"]),
            "--out",
            method,
        )
        assert np.isfinite(np.load(f"{method}/scores.npy")).all()
    ran(
        "attribute",
        *sources,
        "--method",
        "tracin",
        "--set",
        "timesteps=2",
        "--set",
        "checkpoints=2",
        "--out",
        "tracin",
    )
    record = json.loads(Path("tracin/run.json").read_text())
    assert len(record["settings"]["checkpoints"][0]) == 2
    assert "--prompt" in refused(capsys, "sample", base, "--count", "1", "--out", "no.npz")
    assert "belong together" in refused(capsys, "train", "--data", "train.npz", "--lora", "--out", "no")
    bare = ["--model", base, "--train", "train.npz", "--query", "q.npz", "--method", "d-trak", "--out", "no"]
    assert "none" in refused(capsys, "attribute", *bare)


LENGTHS = ("a cat", "a " * 6, "a " * 7, "b " * 7, "a " * 300)  # 6, 8, 9, 9 and 302 tokens of CLIP


@pytest.mark.parametrize("family", ["stable", "sd3"])
def test_captions_that_are_longer_than_clip_sees_are_counted(pipelines, family):
    text = load(pipelines / family).text
    assert text.cuts((*LENGTHS, "b " * 7)) == [("CLIP", 8, 4)]
    assert text.cuts(["a cat"]) == [("CLIP", 8, 0)] and text.cuts([]) == [("CLIP", 8, 0)]
    long, cut = (
        text.embed(["a " * 7])["encoder_hidden_states"],
        text.embed(["a " * 9])["encoder_hidden_states"],
    )
    torch.testing.assert_close(long, cut, rtol=0, atol=0)


def test_of_stable_diffusion_3_with_t5_both_ends_are_counted(tmp_path):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tiny_pipelines.sd3(tmp_path / "words", *tiny_pipelines.t5()).save_pretrained(tmp_path / "sd3")
    text = load(tmp_path / "sd3").text
    assert text.cuts(LENGTHS) == [("CLIP", 8, 3), ("T5", 256, 1)]
    tables = text.embed(["a " * 300, "a " * 299])["encoder_hidden_states"]
    torch.testing.assert_close(tables[0], tables[1], rtol=0, atol=0)


@pytest.mark.parametrize("side", ["training images", "queries"])
def test_captions_that_are_cut_are_said_in_python_and_by_every_command(
    pipelines, store, tmp_path, monkeypatch, capsys, side
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path / "store"))
    base, long, short = str(pipelines / "stable"), ("a " * 40,) * 3, PROMPTS
    train, queries = (
        images(prompts=long if side == kind else short) for kind in ("training images", "queries")
    )
    note = (
        rf"3 of the 3 captions of the {side} are longer than the 8 tokens that CLIP sees: the rest is cut off"
    )
    with pytest.warns(DataWarning, match=note):
        attribute(base, train, queries, method=DTRAK(timesteps=1, k=8), store=store)
    write_examples(tmp_path / "train.npz", train)
    write_examples(tmp_path / "q.npz", queries)
    words = ["--model", base, "--method", "d-trak", "--set", "timesteps=1", "--set", "k=8", "--out", "run"]
    ran("attribute", "--train", "train.npz", "--query", "q.npz", *words)
    assert re.search(note, capsys.readouterr().err)
    assert re.search(note, json.loads(Path("run/run.json").read_text())["notes"][0])
    name = "train.npz" if side == "training images" else "q.npz"
    ran("train", "--data", name, "--model", base, "--lora", "--rank", "1", "--steps", "1", "--out", "lora")
    assert "3 of the 3 captions of the images are longer" in capsys.readouterr().err
    ran("sample", base, "--count", "1", "--steps", "1", "--prompt", long[0], "--out", "s.npz")
    assert "1 of the 1 captions of the pictures are longer" in capsys.readouterr().err


def test_adapters_of_a_model_of_colour_are_trained_on_grey_pictures_as_on_their_rgb(pipelines, store):
    grey = images(prompts=PROMPTS)
    grey = replace(grey, images=grey.images[..., :1])
    tuning = lora_tuning(pipelines / "stable", 1, (16, 16), store)
    one, three = (
        train(tuning, pictures, replace(LORA, steps=2, batch=2, checkpoints=1), 0)
        for pictures in (grey, replace(grey, images=np.repeat(grey.images, 3, axis=3)))
    )
    assert one.fingerprint == three.fingerprint


def ran(*words):
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("sys.argv", ["headwater", *words])
        try:
            main()
        except SystemExit as end:
            assert not end.code, words


def refused(capsys, *words):
    """The error text of a refused command."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["headwater", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2
    return capsys.readouterr().err


def test_frozen_weights_are_shared_and_keep_their_values(pipelines, store):
    base = load(pipelines / "stable")
    before = {name: weight.clone() for name, weight in base.module.state_dict().items()}
    recipe = Recipe(steps=3, batch=2, learning_rate=0.1, checkpoints=1)
    tuned = train(Tuning(base, store, 2), images(prompts=PROMPTS), recipe, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in base.module.state_dict().items())
    parameters = dict(base.module.named_parameters())
    frozen = {
        name.replace(".base_layer", ""): p
        for name, p in tuned.module.named_parameters()
        if "lora_" not in name
    }
    assert frozen.keys() == parameters.keys() and all(
        frozen[name].data_ptr() == parameters[name].data_ptr() for name in parameters
    )
    ups = [p for name, p in tuned.module.named_parameters() if "lora_B" in name]
    assert all(p.abs().max() > 0 for p in ups)
    again = train(Tuning(base, store, 2), images(prompts=PROMPTS), recipe, 0)
    assert again.fingerprint == tuned.fingerprint


def test_all_weights_can_be_trained_further_and_latents_are_drawn_from_their_posterior(pipelines, store):
    base = load(pipelines / "stable")
    tuned = train(
        Tuning(base, store), images(prompts=PROMPTS), Recipe(steps=2, batch=2, checkpoints=1, warmup=0.0), 0
    )
    assert list(tuned.parameters()) == list(base.parameters()) and tuned.fingerprint != base.fingerprint
    material = Tuning(base, store).material(images(prompts=PROMPTS), "cpu", flips=True)
    x = [material.shown(torch.arange(3), 0, step, flips=False) for step in range(400)]
    mode, deviation = (
        torch.as_tensor(part) for part in posteriors(base, images(prompts=PROMPTS), store).swapaxes(0, 1)
    )
    torch.testing.assert_close(
        (torch.stack(x).std(0) / deviation).mean(), torch.tensor(1.0), rtol=0.05, atol=0
    )
    assert ((torch.stack(x).mean(0) - mode) / deviation).abs().max() < 6 / 400**0.5


def test_only_attention_drops_while_adapters_are_trained(pipelines, store, monkeypatch):
    dropouts = {}

    def looked(path, module, *rest):
        dropouts.update(
            {name: layer.p for name, layer in module.named_modules() if isinstance(layer, torch.nn.Dropout)}
        )
        return 0

    monkeypatch.setattr("headwater.models.train._resume", looked)
    recipe = Recipe(steps=1, batch=2, checkpoints=1, dropout=0.25)
    tuned = train(Tuning(load(pipelines / "stable"), store, 2), images(prompts=PROMPTS), recipe, 0)
    assert {p for name, p in dropouts.items() if "attn" in name} == {0.25}
    assert {p for name, p in dropouts.items() if "attn" not in name} == {0.0}
    assert all(layer.p == 0 for layer in tuned.module.modules() if isinstance(layer, torch.nn.Dropout))


def test_adapters_stay_in_float32_beside_a_base_in_bfloat16(pipelines, store, tmp_path):
    recipe = Recipe(steps=3, batch=2, checkpoints=1)
    half = train(
        Tuning(load(pipelines / "stable", dtype="bfloat16"), store, 2), images(prompts=PROMPTS), recipe, 0
    )
    assert {p.dtype for p in half.parameters().values()} == {torch.float32} and half.dtype == torch.bfloat16
    lora.save_adapters(half.module, tmp_path / "lora", "unet")
    again = load(pipelines / "stable", lora=tmp_path / "lora", dtype="bfloat16")
    assert again.fingerprint == half.fingerprint
    single, draws, measure = (
        load(pipelines / "stable", lora=tmp_path / "lora"),
        Draws((5, 500)),
        measurement("simple"),
    )
    rows = [
        torch.cat(list(hooks.gradients(model, inputs_of(model, "stable", store), measure, draws)))
        for model in (single, again)
    ]
    assert torch.nn.functional.cosine_similarity(*rows).min() > 0.98 and rows[1].dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_in_bfloat16(pipelines, store, family):
    rows = []
    for dtype in ("float32", "bfloat16"):
        model = load(pipelines / family, dtype=dtype)
        rows.append(
            torch.cat(
                list(
                    hooks.gradients(
                        model, inputs_of(model, family, store), measurement("simple"), Draws((5, 500))
                    )
                )
            )
        )
    assert torch.nn.functional.cosine_similarity(*rows).min() > 0.98


def test_checkpoints_of_adapters_share_the_weights_of_their_base(pipelines, store, tmp_path):
    base, home = load(pipelines / "stable"), tmp_path / "lora"
    for step in (1, 2):
        tuned = train(
            Tuning(base, store, 2),
            images(prompts=PROMPTS),
            Recipe(steps=step, batch=2, checkpoints=1, warmup=0.0),
            0,
        )
        lora.save_adapters(tuned.module, home / "checkpoints" / f"step-{step}", "unet")
    lora.save_adapters(tuned.module, home, "unet")
    model = load(pipelines / "stable", checkpoints=2, lora=home)
    one, two = model.checkpoints
    assert one.fingerprint != two.fingerprint == model.fingerprint
    assert one.fingerprint == load(pipelines / "stable", lora=home / "checkpoints" / "step-1").fingerprint
    assert all(
        checkpoint.latent is model.latent and checkpoint.text is model.text
        for checkpoint in model.checkpoints
    )
    for (name, p), (_, q) in zip(one.module.named_parameters(), two.module.named_parameters(), strict=True):
        assert (p.data_ptr() == q.data_ptr()) == ("lora_" not in name), name


def test_a_plan_counts_exactly_and_times_the_runs_own_images(pipelines, tmp_path, monkeypatch, capsys):
    """Gradients and stored bytes equal those of the attribution itself."""
    monkeypatch.chdir(tmp_path)
    np.savez("train.npz", images=images(6).images, prompts=np.array(["a cat", "a dog"] * 3))
    # its picture is among the training images
    np.savez("query.npz", images=images(2).images[1:], prompts=np.array(["a cow"]))
    words = [
        "--model",
        str(pipelines / "stable"),
        "--train",
        "train.npz",
        "--query",
        "query.npz",
        "--method",
        "d-trak",
    ]
    words += ["--set", "timesteps=3", "--set", "k=32"]
    capsys.readouterr()
    ran("plan", *words, "--json")
    plan = json.loads(capsys.readouterr().out)
    counts, model = plan["counts"], load(pipelines / "stable")
    assert (counts["n"], counts["queries"], counts["pictures"], counts["prompts"]) == (6, 1, 6, 3)
    assert (
        counts["parameters"]
        == sum(p.numel() for p in model.module.parameters())
        == counts["bytes_of_weights"] / 4
    )
    assert plan["gradients"] == {"train": 3, "query": 3, "train_forward": 0, "query_forward": 0}
    took = plan["seconds_a_picture"]
    assert plan["seconds"]["features"] == pytest.approx(7 * 3 * took["gradient"]) and took["gradient"] > 0
    assert plan["seconds"]["encoding"] == pytest.approx(6 * took["latents"] + 3 * took["prompt"])
    ran("plan", *words)
    text = capsys.readouterr().out
    assert (
        "6, and 1 queries; to encode 6 pictures, 3 prompts" in text
        and "d-trak: 3 an image, 3 a query" in text
    )
    ran("attribute", *words, "--out", "run", "--store", "store")
    rows = {path.parent.name: [] for path in Path("store").rglob("*.npy")}
    for path in Path("store").rglob("*.npy"):
        rows[path.parent.name].append(np.load(path, mmap_mode="r").nbytes)
    assert sorted(map(sum, rows.values())) == sorted(plan["bytes"].values())


def test_a_plan_of_neither_or_both_is_reported(capsys):
    assert "expected one of them" in refused(capsys, "plan")
    assert "expected one of them" in refused(capsys, "plan", "digits", "--method", "trak")


def test_the_time_of_a_picture_leaves_out_setup(monkeypatch):
    import time as clock

    from headwater.cost import attribution as foresight

    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])

    def work(size):
        now[0] += 5 + 2 * size

    assert foresight._seconds(work, 9) == pytest.approx(2)
    assert foresight._seconds(work, 1) == pytest.approx(7)
