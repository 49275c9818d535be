"""Names of the hub: which files are fetched, what a cache without a connection is good for, and that a folder
is a folder."""

import fnmatch
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from headwater.errors import ModelError
from headwater.models import hub
from headwater.models.loading import load

STABLE = """.gitattributes README.md model_index.json v1-5-pruned.ckpt v1-5-pruned-emaonly.safetensors
feature_extractor/preprocessor_config.json safety_checker/config.json
safety_checker/model.safetensors scheduler/scheduler_config.json text_encoder/config.json
text_encoder/model.safetensors text_encoder/model.fp16.safetensors
text_encoder/pytorch_model.bin tokenizer/merges.txt tokenizer/special_tokens_map.json
tokenizer/tokenizer_config.json tokenizer/vocab.json unet/config.json
unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.safetensors
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.safetensors
unet/modeling.py vae/config.json vae/diffusion_pytorch_model.safetensors
vae/diffusion_pytorch_model.fp16.bin"""
NEEDED = """model_index.json scheduler/scheduler_config.json text_encoder/config.json
text_encoder/model.safetensors tokenizer/merges.txt tokenizer/special_tokens_map.json
tokenizer/tokenizer_config.json tokenizer/vocab.json unet/config.json
unet/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors"""


def test_of_stable_diffusion_what_is_needed_is_fetched_and_nothing_else():
    assert sorted(hub.pipeline_files(STABLE.split())) == sorted(NEEDED.split())


def test_a_first_pipelines_network_lies_in_its_root():
    files = [
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "README.md",
        "diffusion_pytorch_model.bin",
    ]
    assert hub.pipeline_files([*files, "diffusion_pytorch_model.safetensors"]) == [
        *files[:3],
        "diffusion_pytorch_model.safetensors",
    ]


def test_the_variant_fp16_is_fetched_where_it_is_all_there_is():
    assert hub.weight_files(["model.fp16.safetensors", "model.non_ema.safetensors"]) == [
        "model.fp16.safetensors"
    ]
    parts = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    half = ["model.safetensors.index.fp16.json", "model.fp16-00001-of-00001.safetensors"]
    assert hub.weight_files([*half, *parts]) == parts and hub.weight_files(half) == half


def test_pickled_weights_alone_are_refused_by_name():
    with pytest.raises(
        ModelError, match=r"The unet of this model has only pickled weights \(diffusion_pytorch_model.bin\)"
    ):
        hub.pipeline_files(["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"])


def test_of_adapters_the_files_of_diffusers_or_peft_are_fetched():
    assert hub.adapter_files(["README.md", "pytorch_lora_weights.safetensors", "x.bin"]) == [
        "pytorch_lora_weights.safetensors"
    ]
    assert hub.adapter_files(["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]) == [
        *hub.ADAPTERS[1:]
    ]


@pytest.fixture
def alone(monkeypatch):
    """A machine without a network: whoever tries is found out."""

    def refuse(*args):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def model(tmp_path, tiny):
    """A small pipeline's folder."""
    from headwater.models.unet import save_pipeline

    save_pipeline(tiny(), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, empty; `put` is what a download leaves there."""
    root = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))

    def put(name, folder, only="*"):
        home = root / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("0" * 40)
        for path in folder.rglob("*"):
            if path.is_file() and fnmatch.fnmatchcase(str(path.relative_to(folder)), only):
                to = home / "snapshots" / ("0" * 40) / path.relative_to(folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)
        return home / "snapshots" / ("0" * 40)

    return put


def test_a_folder_is_a_folder_and_nothing_is_downloaded(alone, model, monkeypatch):
    monkeypatch.chdir(model.parent.parent)
    assert load(model).fingerprint == load(f"{model.parent.name}/model").fingerprint


@pytest.mark.parametrize("name", ["hf:nobody/small", "nobody/small"])
def test_without_a_connection_the_cache_is_used(cache, model, monkeypatch, name):
    cache("nobody/small", model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(name).fingerprint == load(model).fingerprint


def test_what_the_cache_lacks_is_reported_with_what_to_do(cache, model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError,
        match=r"hf:nobody/small could not be fetched .* holds nothing of it.*HF_HUB_OFFLINE.*name a folder",
    ):
        load("nobody/small")
    cache("nobody/small", model, only="[ms]*")
    with pytest.raises(ModelError, match=r"lacks its unet\."):
        load("nobody/small")


def test_a_part_of_weights_that_a_killed_download_left_out_is_missed(cache, model):
    part = model / "unet" / "diffusion_pytorch_model.safetensors"
    part.rename(part.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    weights = '{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "%s"}}'
    index = part.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(weights % "diffusion_pytorch_model-00002-of-00002.safetensors")
    assert hub.lacking(model) == ["unet"]
    index.write_text(weights % "diffusion_pytorch_model-00001-of-00002.safetensors")
    assert hub.lacking(model) == []


def test_only_the_needed_files_of_a_name_are_downloaded(cache, model, monkeypatch):
    (model / "model.ckpt").write_text("never")
    patterns = {}

    def downloaded(name, allow_patterns):
        patterns[name] = sorted(allow_patterns)
        return str(cache(name, model))

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: _files(model))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    assert load("hf:nobody/small").fingerprint == load(model).fingerprint
    assert patterns == {"nobody/small": sorted(set(_files(model)) - {"model.ckpt"})}


def _files(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["./no/where", "/no/where", "nowhere", "some/where/else"])
def test_neither_folder_nor_name_is_reported_without_a_request(alone, name):
    with pytest.raises(ModelError, match=r"There is no model folder .*written hf:owner/name, such as hf:"):
        load(name)


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(alone, model, monkeypatch):
    monkeypatch.chdir(model.parent.parent)
    with pytest.raises(ModelError, match="There is no model folder"):
        load(f"{model.parent.name}/modle")
    with pytest.raises(ModelError, match="'hf:model' names no model on the hub; expected hf:owner/name"):
        load("hf:model")


def test_weights_of_the_variant_fp16_are_widened_and_noted(model):
    from safetensors.torch import load_file, save_file

    from headwater.models.loading import notes_on

    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(
        {name: weight.half() for name, weight in weights.items()},
        path.with_name("diffusion_pytorch_model.fp16.safetensors"),
    )
    assert not notes_on(model)
    path.unlink()
    state = load(model).module.state_dict()
    assert all(state[name].dtype == weight.dtype for name, weight in state.items())
    assert all((state[name] == weight.half().to(state[name])).all() for name, weight in weights.items())
    assert "only weights of the variant fp16 (unet)" in notes_on(model)[0]


def test_the_schedule_of_a_first_pipeline_is_in_its_root(model):
    for path in (*(model / "unet").iterdir(), *(model / "scheduler").iterdir()):
        shutil.move(path, model / path.name)
    config = (model / "scheduler_config.json").read_text()
    (model / "scheduler_config.json").write_text(config.replace("0.02", "0.03"))
    for name in ("unet", "scheduler"):
        Path(model / name).rmdir()
    assert load(model).schedule.beta[-1] == pytest.approx(0.03) and hub.lacking(model) == []
