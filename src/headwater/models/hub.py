"""Models of the Hugging Face hub by name: only the needed files, in the hub's own cache."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from headwater.disk.files import check_hub_cache, expanded
from headwater.errors import ModelError

EXAMPLE_MODEL = "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NETWORK = re.compile(r"unet|transformer|v(q)?ae|text_encoder(_\d)?")
# of components without weights
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}
ROOT = ("model_index.json", "config.json", "scheduler_config.json")
ADAPTERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json")
WEIGHTS = r"(diffusion_pytorch_model|model)"
WEIGHT_VARIANTS = ("", r"\.fp16")  # in order of preference


def place(source: str | Path, needed: Callable[[Iterable[str]], list[str]]) -> Path:
    """The folder that `source` names. An existing folder is returned unchanged; for a name on the hub,
    hf:owner/name or owner/name, its folder in the hub's cache, with its `needed` files downloaded; else the
    missing path itself."""
    word, path = str(source), expanded(source)
    if path.is_dir():
        return path
    name = word.removeprefix("hf:")
    mistyped = word == name and path.parent.exists()  # a folder `owner` exists
    if mistyped or not REPOSITORY.fullmatch(name):
        if word != name:
            raise ModelError(
                f"'{word}' names no model on the hub; expected hf:owner/name, such as {EXAMPLE_MODEL}."
            )
        return path
    return _fetched(name, needed)


def pipeline_files(files: Iterable[str]) -> list[str]:
    """The files of a diffusers pipeline, or of one network, in a repository: configurations, tokenizers, and
    weights as safetensors; without single-file checkpoints, other variants, safety checkers and code."""
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        folders[folder].append(name)
    needed = [name for name in folders[""] if name in ROOT]
    if not any(NETWORK.fullmatch(folder) for folder in folders):
        needed += weight_files(folders[""])
    for folder, names in folders.items():
        if NETWORK.fullmatch(folder):
            needed += [
                f"{folder}/{name}" for name in ("config.json", *_weights_of(folder, names)) if name in names
            ]
        elif _kind(folder) in CONFIGS and "/" not in folder:
            needed += [f"{folder}/{name}" for name in names if name.endswith((".json", ".txt", ".model"))]
    return needed


def adapter_files(files: Iterable[str]) -> list[str]:
    """The files of LoRA weights in a repository, as written by diffusers or PEFT."""
    return [name for name in ADAPTERS if name in files]


def weight_files(names: Iterable[str]) -> list[str]:
    """The files of a network's weights among `names`: one file, or several and their index; float32, else the
    variant fp16."""
    names = list(names)
    for variant in WEIGHT_VARIANTS:
        parts = re.compile(
            rf"{WEIGHTS}({variant}(-\d+-of-\d+)?\.safetensors|\.safetensors\.index{variant}\.json)"
        )
        if matches := [name for name in names if parts.fullmatch(name)]:
            return matches
    return []


def lacking(folder: Path) -> list[str]:
    """The components in a pipeline's index that are missing or incomplete; without an index, the network."""
    index = folder / "model_index.json"
    entries = json.loads(index.read_text()) if index.exists() else {"unet": [""]}
    named = [name for name, kind in entries.items() if isinstance(kind, list) and kind[0] is not None]
    return [
        name
        for name in named
        if (NETWORK.fullmatch(name) or _kind(name) in CONFIGS) and not _complete(folder, name)
    ]


def _complete(folder: Path, name: str) -> bool:
    """Whether the component is complete, in its own folder or (in the first pipelines) in the pipeline's."""
    home = folder / name if (folder / name).is_dir() else folder
    if _kind(name) in CONFIGS:
        return (home / CONFIGS[_kind(name)]).exists()
    files = weight_files(path.name for path in home.iterdir())
    indices = [home / name for name in files if name.endswith(".json")]
    parts = {part for index in indices for part in json.loads(index.read_text())["weight_map"].values()}
    return bool(files) and parts <= set(files) and (home / "config.json").exists()


def _weights_of(folder: str, names: list[str]) -> list[str]:
    files = weight_files(names)
    pickled = sorted(name for name in names if name.endswith((".bin", ".ckpt", ".pt")))
    if pickled and not files:
        raise ModelError(
            f"The {folder} of this model has only pickled weights ({pickled[0]}), which are never loaded: "
            "unpickling can run code. Expected safetensors; look for another copy of the model, or convert "
            "it."
        )
    return files


def _fetched(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Path:
    """The repository's needed files, downloaded; if the hub does not answer, a complete cached folder."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    check_hub_cache()
    try:
        files = needed(HfApi().list_repo_files(name))
        if files:
            return Path(snapshot_download(name, allow_patterns=files))
        reason = "it holds none of the needed files"
    except ModelError as error:
        raise ModelError(f"hf:{name}: {error}", hint=error.hint) from error
    except Exception as error:  # every HTTP client raises its own
        reason = " ".join(str(error).split())[:150] or type(error).__name__
    cached = [
        path for mark in (*ROOT, *ADAPTERS) if isinstance(path := try_to_load_from_cache(name, mark), str)
    ]
    folder = Path(cached[0]).parent if cached else None
    missing = lacking(folder) if folder is not None and needed is pipeline_files else []
    if folder is not None and not missing:
        return folder
    state = f"lacks its {', '.join(missing)}" if missing else "holds nothing of it"
    raise ModelError(
        f"The model hf:{name} could not be fetched from the hub ({reason}), and the cache {HF_HUB_CACHE} "
        f"{state}. Check the name and the connection, and that HF_HUB_OFFLINE is not set; for a model that "
        "asks for consent, `hf auth login`. Without a connection, name a folder, or copy the cache of a "
        "machine that has one."
    )


def _kind(name: str) -> str:
    return name.partition("_")[0]
