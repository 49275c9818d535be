"""LoRA: low-rank updates W + (α/r)·BA of a network's attention, in the file formats of diffusers and PEFT.

(Hu et al. 2021, arXiv:2106.09685.)
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from headwater import seeds
from headwater.disk.files import written
from headwater.errors import ModelError
from headwater.models.folders import json_of, libraries

# Zheng et al. 2023 (D-TRAK), appendix A.1: every attention of the UNet
TARGETS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
)
DIFFUSERS_FILE, PEFT_FILE = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
ADAPTER = "default"
METADATA = "lora_adapter_metadata"  # diffusers' entry of a file's header, with rank and α
BASE_FILE = "base.json"
BASE_FORMAT = "`base`, a pipeline's folder or name, and `size`, [height, width] of its pictures"


class Base(NamedTuple):
    """The base of adapters: a pipeline's folder or name, and the height and width of the pictures."""

    base: str
    size: tuple[int, int]


def beside(module: nn.Module) -> nn.Module:
    """A copy of the network for separate adapters; its weights are shared with `module`."""
    return deepcopy(module, {id(p): p for p in module.parameters()})


def add(module: Any, rank: int, seed: int) -> None:
    """Add adapters with α = rank, A of stream (seed, "lora") and B = 0; only they are trainable."""
    peft = libraries("peft")
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights="gaussian"
    )
    with torch.random.fork_rng(devices=[]):  # PEFT draws from torch's global generator
        torch.default_generator.manual_seed(seeds.key(seed, "lora", bits=64) >> 1)
        _add(module, config)


def attach(module: Any, folder: Path, prefix: str) -> None:
    """Add the adapters in a folder; only they are trainable. `prefix`: the network's name in the pipeline."""
    peft = libraries("peft")
    weights, config = _read(folder, prefix)
    _check(module, weights, folder)
    downs = {
        name.removesuffix(".lora_A.weight"): w
        for name, w in weights.items()
        if name.endswith("lora_A.weight")
    }
    ranks = {name: down.shape[0] for name, down in downs.items()}
    first = next(iter(ranks.values()))
    lora_config = peft.LoraConfig(
        r=first,
        lora_alpha=config.get("lora_alpha", first),
        rank_pattern={name: rank for name, rank in ranks.items() if rank != first},
        alpha_pattern=config.get("alpha_pattern", {}),
        use_rslora=config.get("use_rslora", False),
        target_modules=list(ranks),
    )
    with torch.random.fork_rng(devices=[]):
        _add(module, lora_config)
    peft.set_peft_model_state_dict(module, weights, adapter_name=ADAPTER)


def save_adapters(module: nn.Module, folder: Path, prefix: str) -> None:
    """Write the network's adapters in diffusers' format: `pipeline.load_lora_weights(folder)` reads them."""
    peft = libraries("peft")
    weights = peft.get_peft_model_state_dict(module, adapter_name=ADAPTER)
    config: Any = cast(Any, module).peft_config[ADAPTER]
    fields = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
    metadata = {f"{prefix}.{name}": getattr(config, name) for name in fields}
    metadata[f"{prefix}.target_modules"] = sorted(config.target_modules)
    tensors = {f"{prefix}.{name}": weight.detach().contiguous().cpu() for name, weight in weights.items()}
    with written(folder / DIFFUSERS_FILE) as file:
        # one entry: the order of several varies
        file.write(serialized(tensors, metadata={METADATA: json.dumps(metadata)}))


def write_base(folder: Path, base: Base) -> None:
    """Record the base of the folder's adapters, so that the folder can be opened by itself."""
    if read_base(folder) != base:
        with written(folder / BASE_FILE, "w") as file:
            json.dump(base._asdict(), file, indent=1)


def read_base(folder: Path) -> Base | None:
    """The recorded base of the folder's adapters, or None."""
    if not (folder / BASE_FILE).exists():
        return None
    record = json_of(folder / BASE_FILE, BASE_FORMAT)
    try:
        return Base(str(record["base"]), (int(record["size"][0]), int(record["size"][1])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{folder / BASE_FILE} says {record}; expected {BASE_FORMAT}.") from error


def has_adapters(folder: Path) -> bool:
    """Whether there are LoRA weights in the folder."""
    return (folder / DIFFUSERS_FILE).exists() or (folder / PEFT_FILE).exists()


def _add(module: Any, config: Any) -> None:
    if not hasattr(module, "add_adapter"):
        raise ModelError(
            f"diffusers has no LoRA of a {type(module).__name__}; expected a network conditioned on text."
        )
    module.requires_grad_(False)
    try:
        module.add_adapter(config, ADAPTER)
    except ValueError as error:  # PEFT found no layer of these names
        raise ModelError(f"LoRA adapts {', '.join(TARGETS)}, and the network has no such layers.") from error
    for p in module.parameters():
        if p.requires_grad:  # PEFT gives adapters the dtype of the adapted weights
            p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))


def _read(folder: Path, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by their place in the network, and their configuration, from diffusers' or PEFT's files."""
    if (folder / PEFT_FILE).exists():
        config = json_of(folder / "adapter_config.json", "PEFT's own description of its weights")
        if config.get("peft_type") != "LORA":
            raise ModelError(f"The adapter in {folder} is {config.get('peft_type')}; expected LORA.")
        return _stripped(_tensors(folder / PEFT_FILE)[0], "base_model.model."), config
    if not (folder / DIFFUSERS_FILE).exists():
        pickled = list(folder.glob("*.bin")) + list(folder.glob("*.pt")) if folder.is_dir() else []
        content = (
            "pickled weights, which are never loaded"
            if pickled
            else f"no {DIFFUSERS_FILE} and no {PEFT_FILE}"
        )
        raise ModelError(
            f"In {folder} there are {content}. Expected a folder of LoRA weights "
            "written by diffusers or PEFT, or the name of one on the hub, hf:owner/name."
        )
    weights, header = _tensors(folder / DIFFUSERS_FILE)
    metadata = json.loads(header.get(METADATA, "{}"))
    weights = {
        name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): w
        for name, w in weights.items()
    }
    further = sorted({name.partition(".")[0] for name in weights} - {prefix})
    if further:
        raise ModelError(
            f"The LoRA in {folder} also changes {', '.join(further)}; expected a LoRA of the {prefix} only."
        )
    return _stripped(weights, f"{prefix}."), {
        name.removeprefix(f"{prefix}."): value for name, value in metadata.items()
    }


def _stripped(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}). Copy it again.") from error


def _check(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Raise a ModelError for weights of another network, by name and shape."""
    layers = dict(module.named_modules())
    for name, factor in weights.items():
        place, _, side = name.removesuffix(".weight").rpartition(".")
        base: Any = layers.get(place)
        if side not in ("lora_A", "lora_B"):
            raise ModelError(
                f"The LoRA in {folder} holds '{name}'; expected only lora_A and lora_B of layers."
            )
        weight = None if base is None else getattr(base, "weight", None)
        if weight is None:
            raise ModelError(
                f"The LoRA in {folder} was trained on another model: this one has no layer {place}."
            )
        width, expected = (
            (factor.shape[1], weight.shape[1]) if side == "lora_A" else (factor.shape[0], weight.shape[0])
        )
        if width != expected:
            raise ModelError(
                f"The LoRA in {folder} was trained on another model: {place} takes {expected} numbers, not "
                f"{width}."
            )
    if not weights:
        raise ModelError(f"The LoRA in {folder} is empty.")
