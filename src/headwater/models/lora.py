"""LoRA: low-rank updates W + (α/r)·BA of a network's attention, kept in the files of diffusers and PEFT.

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

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # Zheng et al. 2023 (D-TRAK), appendix A.1: every attention of the UNet
DIFFUSERS, PEFT = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
NAME = "default"
METADATA = "lora_adapter_metadata"  # diffusers' name for the entry of a file's header that tells rank and α
TOLD = "base.json"
EXPECTED = "`base`, a pipeline's folder or name, and `size`, [height, width] of its pictures"


class Base(NamedTuple):
    """What adapters were trained on: a pipeline's folder or name, and the height and width of the pictures."""

    base: str
    size: tuple[int, int]


def beside(module: nn.Module) -> nn.Module:
    """A network for adapters of its own, whose other weights are those of `module`: not copied."""
    return deepcopy(module, {id(p): p for p in module.parameters()})


def add(module: Any, rank: int, seed: int) -> None:
    """Give the network adapters with α = rank, A of stream (seed, "lora") and B = 0; they alone are trained from now on."""
    peft = libraries("peft")
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights="gaussian")
    with torch.random.fork_rng(devices=[]):  # PEFT draws from torch's global generator
        torch.default_generator.manual_seed(seeds.key(seed, "lora", bits=64) >> 1)
        _added(module, config)


def attach(module: Any, folder: Path, prefix: str) -> None:
    """Give the network the adapters in a folder, its only trainable parameters; `prefix` is the pipeline's name for the network."""
    peft = libraries("peft")
    weights, config = _read(folder, prefix)
    _check(module, weights, folder)
    ranks = {name.removesuffix(".lora_A.weight"): each.shape[0] for name, each in weights.items() if name.endswith("lora_A.weight")}
    first = next(iter(ranks.values()))
    made = peft.LoraConfig(
        r=first,
        lora_alpha=config.get("lora_alpha", first),
        rank_pattern={name: rank for name, rank in ranks.items() if rank != first},
        alpha_pattern=config.get("alpha_pattern", {}),
        use_rslora=config.get("use_rslora", False),
        target_modules=list(ranks),
    )
    with torch.random.fork_rng(devices=[]):
        _added(module, made)
    peft.set_peft_model_state_dict(module, weights, adapter_name=NAME)


def save(module: nn.Module, folder: Path, prefix: str) -> None:
    """Write the network's adapters as diffusers' pipelines load them: `pipeline.load_lora_weights(folder)`."""
    peft = libraries("peft")
    weights = peft.get_peft_model_state_dict(module, adapter_name=NAME)
    config: Any = cast(Any, module).peft_config[NAME]
    told = {
        f"{prefix}.{name}": getattr(config, name) for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
    }
    told[f"{prefix}.target_modules"] = sorted(config.target_modules)
    tensors = {f"{prefix}.{name}": each.detach().contiguous().cpu() for name, each in weights.items()}
    with written(folder / DIFFUSERS) as file:
        file.write(serialized(tensors, metadata={METADATA: json.dumps(told)}))  # one entry: several come in any order


def tell(folder: Path, base: Base) -> None:
    """Write down in the folder what its adapters are of, so that it can be opened by itself."""
    if told(folder) != base:
        with written(folder / TOLD, "w") as file:
            json.dump(base._asdict(), file, indent=1)


def told(folder: Path) -> Base | None:
    """What the adapters in the folder are of, where it says so."""
    if not (folder / TOLD).exists():
        return None
    found = json_of(folder / TOLD, EXPECTED)
    try:
        return Base(str(found["base"]), (int(found["size"][0]), int(found["size"][1])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{folder / TOLD} says {found}; expected {EXPECTED}.") from error


def holds(folder: Path) -> bool:
    """Whether there are LoRA weights in the folder."""
    return (folder / DIFFUSERS).exists() or (folder / PEFT).exists()


def _added(module: Any, config: Any) -> None:
    if not hasattr(module, "add_adapter"):
        raise ModelError(f"diffusers has no LoRA of a {type(module).__name__}; expected a network that is conditioned on text.")
    module.requires_grad_(False)
    try:
        module.add_adapter(config, NAME)
    except ValueError as error:  # PEFT found no layer of these names
        raise ModelError(f"LoRA goes to {', '.join(TARGETS)}, and the network has no such layers.") from error
    for p in module.parameters():
        if p.requires_grad:  # PEFT gives them the dtype of the weights beside them
            p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))


def _read(folder: Path, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by their place in the network, and what else is told of them, from a file of diffusers or a folder of PEFT."""
    if (folder / PEFT).exists():
        config = json_of(folder / "adapter_config.json", "PEFT's own description of its weights")
        if config.get("peft_type") != "LORA":
            raise ModelError(f"The adapter in {folder} is {config.get('peft_type')}; expected LORA.")
        return _stripped(_tensors(folder / PEFT)[0], "base_model.model."), config
    if not (folder / DIFFUSERS).exists():
        pickled = list(folder.glob("*.bin")) + list(folder.glob("*.pt")) if folder.is_dir() else []
        what = "pickled weights, which are never loaded" if pickled else f"no {DIFFUSERS} and no {PEFT}"
        raise ModelError(
            f"In {folder} there are {what}. Expected a folder of LoRA weights that "
            "diffusers or PEFT wrote, or the name of one on the hub, hf:owner/name."
        )
    weights, header = _tensors(folder / DIFFUSERS)
    told = json.loads(header.get(METADATA, "{}"))
    weights = {name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): each for name, each in weights.items()}
    others = sorted({name.partition(".")[0] for name in weights} - {prefix})
    if others:
        raise ModelError(f"The LoRA in {folder} also changes {', '.join(others)}; expected one of the {prefix} alone.")
    return _stripped(weights, f"{prefix}."), {name.removeprefix(f"{prefix}."): value for name, value in told.items()}


def _stripped(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in weights.items()}


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}). Copy it again.") from error


def _check(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Refuse weights that were trained on another network, by name and shape."""
    layers = dict(module.named_modules())
    for name, each in weights.items():
        place, _, side = name.removesuffix(".weight").rpartition(".")
        base: Any = layers.get(place)
        if side not in ("lora_A", "lora_B"):
            raise ModelError(f"The LoRA in {folder} holds '{name}'; expected lora_A and lora_B of layers alone.")
        weight = None if base is None else getattr(base, "weight", None)
        if weight is None:
            raise ModelError(f"The LoRA in {folder} was trained on another model: this one has no layer {place}.")
        width, own = (each.shape[1], weight.shape[1]) if side == "lora_A" else (each.shape[0], weight.shape[0])
        if width != own:
            raise ModelError(f"The LoRA in {folder} was trained on another model: {place} takes {own} numbers, not {width}.")
    if not weights:
        raise ModelError(f"The LoRA in {folder} is empty.")
