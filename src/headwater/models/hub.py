"""Models of the Hugging Face hub by name: the files that are needed of one, and no others, in the hub's own cache."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from headwater.errors import ModelError

EXAMPLE = "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NETWORK = re.compile(r"unet|transformer|v(q)?ae|text_encoder(_\d)?")
TOLD = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}  # a part without weights: its one certain file
ROOT = ("model_index.json", "config.json", "scheduler_config.json")
ADAPTERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json")
STEM = r"(diffusion_pytorch_model|model)"
VARIANTS = ("", r"\.fp16")  # the first that there is


def place(source: str | Path, needed: Callable[[Iterable[str]], list[str]]) -> Path:
    """The folder that `source` names. One that exists is always itself, and nothing is downloaded; a name of the hub, hf:owner/name
    or owner/name, is its folder in the hub's cache, with its `needed` files; of anything else, the path that is not there."""
    word, path = str(source), Path(source).expanduser()
    if path.is_dir():
        return path
    name = word.removeprefix("hf:")
    named = NAME.fullmatch(name) and (word != name or not path.parent.exists())  # where there is an `owner` here, it was mistyped
    if not named:
        if word != name:
            raise ModelError(f"'{word}' names no model of the hub; expected hf:owner/name, such as {EXAMPLE}.")
        return path
    return _fetched(name, needed)


def pipeline(files: Iterable[str]) -> list[str]:
    """Of a repository's files those of a diffusers pipeline, or of one network: configurations, tokenizers, and weights from
    safetensors. Whole checkpoints beside them, other variants, safety checkers and code are left out."""
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        folders[folder].append(name)
    chosen = [name for name in folders[""] if name in ROOT]
    if not any(NETWORK.fullmatch(folder) for folder in folders):
        chosen += weights(folders[""])
    for folder, names in folders.items():
        if NETWORK.fullmatch(folder):
            chosen += [f"{folder}/{name}" for name in ("config.json", *_weights_of(folder, names)) if name in names]
        elif _kind(folder) in TOLD and "/" not in folder:
            chosen += [f"{folder}/{name}" for name in names if name.endswith((".json", ".txt", ".model"))]
    return chosen


def adapters(files: Iterable[str]) -> list[str]:
    """Of a repository's files those of LoRA weights, as diffusers or PEFT writes them."""
    return [name for name in ADAPTERS if name in files]


def weights(names: Iterable[str]) -> list[str]:
    """The files of a network's weights among those in its folder: in one, or in several and their index. float32 if there, else
    the variant fp16."""
    names = list(names)
    for variant in VARIANTS:
        parts = re.compile(rf"{STEM}({variant}(-\d+-of-\d+)?\.safetensors|\.safetensors\.index{variant}\.json)")
        if found := [name for name in names if parts.fullmatch(name)]:
            return found
    return []


def lacking(folder: Path) -> list[str]:
    """What is not there of the components that a pipeline's index names; without an index, the network."""
    index = folder / "model_index.json"
    told = json.loads(index.read_text()) if index.exists() else {"unet": [""]}
    named = [name for name, kind in told.items() if isinstance(kind, list) and kind[0] is not None]
    return [name for name in named if (NETWORK.fullmatch(name) or _kind(name) in TOLD) and not _whole(folder, name)]


def _whole(folder: Path, name: str) -> bool:
    """Whether the component is all there, in its own folder or, as of the first pipelines, in the pipeline's."""
    home = folder / name if (folder / name).is_dir() else folder
    if _kind(name) in TOLD:
        return (home / TOLD[_kind(name)]).exists()
    found = weights(each.name for each in home.iterdir())
    indices = [home / each for each in found if each.endswith(".json")]
    parts = {part for each in indices for part in json.loads(each.read_text())["weight_map"].values()}
    return bool(found) and parts <= set(found) and (home / "config.json").exists()


def _weights_of(folder: str, names: list[str]) -> list[str]:
    found = weights(names)
    pickled = sorted(name for name in names if name.endswith((".bin", ".ckpt", ".pt")))
    if pickled and not found:
        raise ModelError(
            f"The {folder} of this model has pickled weights alone ({pickled[0]}), which are never loaded: unpickling can run "
            "code. Expected safetensors; look for another copy of the model, or convert it."
        )
    return found


def _fetched(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Path:
    """The repository's needed files, downloaded; where the hub does not answer, what the cache holds, if that is all."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        chosen = needed(HfApi().list_repo_files(name))
        if chosen:
            return Path(snapshot_download(name, allow_patterns=chosen))
        told = "it holds none of the files looked for"
    except ModelError as error:
        raise ModelError(f"hf:{name}: {error}") from error
    except Exception as error:  # every HTTP client raises its own
        told = " ".join(str(error).split())[:150] or type(error).__name__
    found = [path for mark in (*ROOT, *ADAPTERS) if isinstance(path := try_to_load_from_cache(name, mark), str)]
    folder = Path(found[0]).parent if found else None
    missing = lacking(folder) if folder is not None and needed is pipeline else []
    if folder is not None and not missing:
        return folder
    held = f"lacks its {', '.join(missing)}" if missing else "holds nothing of it"
    raise ModelError(
        f"The model hf:{name} could not be had from the hub ({told}), and the cache {HF_HUB_CACHE} {held}. Check the name and the "
        "connection, and that HF_HUB_OFFLINE is not set; for a model that asks for consent, `hf auth login`. Without a connection, "
        "name a folder, or copy the cache of a machine that has one."
    )


def _kind(name: str) -> str:
    return name.partition("_")[0]
