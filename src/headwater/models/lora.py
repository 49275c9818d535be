"""LoRA: low-rank updates W + (α/r)·BA of a network's attention.

(Hu et al. 2021, arXiv:2106.09685.)
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save as serialized
from torch import nn

from headwater import seeds
from headwater.disk.files import written
from headwater.errors import ModelError
from headwater.models.folders import json_of, libraries
from headwater.models.lora_files import DIFFUSERS_FILE, METADATA, lora_weights

# Zheng et al. 2023 (D-TRAK), appendix A.1: every attention of the UNet
TARGETS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
)
ADAPTER = "default"
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
    """Add the adapters in a folder or file; only they are trainable. `prefix`: the network's name in the
    pipeline."""
    peft = libraries("peft")
    lora = lora_weights(folder, module, prefix)
    if lora.changes_base:  # the weights of `module` may be another model's, too
        for name in lora.layers:
            layer = module.get_submodule(name)
            layer.weight = nn.Parameter(layer.weight.detach().clone())
    with torch.random.fork_rng(devices=[]):
        _add(module, peft.LoraConfig(**lora.config))
    peft.set_peft_model_state_dict(module, lora.factors, adapter_name=ADAPTER)


def scales(module: nn.Module) -> list[str]:
    """The scales α/r of the adapters that are not 1: two models can have equal weights and other scales."""
    tables = ((name, getattr(layer, "scaling", None)) for name, layer in module.named_modules())
    factors = {name: table[ADAPTER] for name, table in tables if isinstance(table, dict) and ADAPTER in table}
    return [f"{name} {scale}" for name, scale in factors.items() if scale != 1]


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


def _add(module: Any, config: Any) -> None:
    if not hasattr(module, "add_adapter"):
        raise ModelError(
            f"diffusers has no LoRA of a {type(module).__name__}; expected a network conditioned on text."
        )
    module.requires_grad_(False)
    try:
        module.add_adapter(config, ADAPTER)
    except ValueError as error:  # such as: no layer of these names
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"PEFT cannot adapt the network's layers: {reason}") from error
    for p in module.parameters():
        if p.requires_grad:  # PEFT gives adapters the dtype of the adapted weights
            p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))
