"""LoRA files: the factors A and B of W + s·BA, and the scale s of each layer, as diffusers, PEFT and kohya's
trainer write them.

diffusers names a layer by its place in the pipeline, or in the network alone (`save_lora_adapter`); its files
of 2023 name attention processors, kohya's join the parts of a name by `_`. s = α/r. A file without any α
means α = r; a description without α means PEFT's own default.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from headwater.errors import ModelError
from headwater.models.folders import json_of

DIFFUSERS_FILE, PEFT_FILE = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
METADATA = "lora_adapter_metadata"  # diffusers' entry of a file's header, with rank and α
KOHYA = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "alpha": "alpha"}
FACTORS = (".lora_A.weight", ".lora_B.weight")
SCALES = ("lora_alpha", "alpha_pattern", "use_rslora")
PLAIN = ("gaussian", "eva", "orthogonal", "mica")  # starts that leave the base as it is
SUBTRACTED = ("olora", "pissa")  # starts that PEFT takes from the base again when it opens the adapter
HARMLESS = {  # further entries of PEFT's description that do not change what an opened adapter computes
    *SCALES,
    *("r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("init_lora_weights", "eva_config", "corda_config", "loftq_config", "lora_ga_config", "lora_dropout"),
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "fan_in_fan_out", "runtime_config", "megatron_core", "qalora_group_size"),
    "ensure_weight_tying",
}


class LoraWeights(NamedTuple):
    """Factors by name, `<layer>.lora_A.weight` and `<layer>.lora_B.weight`, and keywords of peft.LoraConfig
    that give each layer its rank, scale and start."""

    factors: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def layers(self) -> list[str]:
        """The names of the adapted layers."""
        return self.config["target_modules"]

    @property
    def changes_base(self) -> bool:
        """Whether PEFT takes the start of A and B from the base's weights when it opens the adapter."""
        return self.config["init_lora_weights"] is not True


class _File(NamedTuple):
    """A file's tensors by PEFT's names, α by layer, and the description of them, if there is one."""

    factors: dict[str, Tensor]
    alphas: dict[str, float]
    description: Mapping[str, Any] | None


def lora_weights(path: Path, module: nn.Module, prefix: str) -> LoraWeights:
    """The adapters of `module` in a folder or file; `prefix` is the network's name in its pipeline.

    Raises a ModelError for adapters of another model, and for those that change more than plain LoRA does."""
    folder = path.parent if path.name in (DIFFUSERS_FILE, PEFT_FILE) else path
    if (folder / PEFT_FILE).exists():
        file = _of_peft(folder)
    else:
        file = _of_diffusers(_single(folder), module, prefix)
    ranks = _ranks(file.factors, module, folder)
    return LoraWeights(file.factors, _config(ranks, file, folder))


def has_lora_weights(folder: Path) -> bool:
    """Whether there are LoRA weights in the folder."""
    return (folder / DIFFUSERS_FILE).exists() or (folder / PEFT_FILE).exists()


def _single(path: Path) -> Path:
    """The file itself, or a folder's: by diffusers' name, else its only one; a ModelError for none."""
    file, files = path if path.is_file() else path / DIFFUSERS_FILE, list(path.glob("*.safetensors"))
    if file.suffix == ".safetensors" and (file.exists() or len(files) == 1):
        return file if file.exists() else files[0]
    pickled = path.is_file() or list(path.glob("*.bin")) + list(path.glob("*.pt"))
    content = (
        "pickled weights, which are never loaded" if pickled else f"no {DIFFUSERS_FILE} and no {PEFT_FILE}"
    )
    raise ModelError(
        f"In {path} there are {content}. Expected a folder of LoRA weights written by diffusers or PEFT, a "
        ".safetensors file, or the name of one on the hub, hf:owner/name."
    )


def _of_peft(folder: Path) -> _File:
    description = json_of(folder / "adapter_config.json", "PEFT's own description of its weights")
    if description.get("peft_type") != "LORA":
        raise ModelError(f"The adapter in {folder} is {description.get('peft_type')}; expected LORA.")
    weights, _ = _tensors(folder / PEFT_FILE)
    factors = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
    return _File(factors, {}, description)


def _of_diffusers(path: Path, module: nn.Module, prefix: str) -> _File:
    weights, header = _tensors(path)
    if any(name.startswith("lora_unet_") for name in weights):
        weights = _of_kohya(weights, module, path)
    own = {name for name, _ in module.named_children()}
    further = sorted({name.partition(".")[0] for name in weights} - {prefix} - own)
    if further:
        raise ModelError(
            f"The LoRA in {path} holds weights of {_listed(further)}; expected those of the {prefix} only."
        )
    tensors = convert_unet_state_dict_to_peft(
        {name.removeprefix(f"{prefix}."): weight for name, weight in weights.items()}
    )
    numbers = [name for name, tensor in tensors.items() if name.endswith(".alpha") and tensor.numel() == 1]
    alphas = {name.removesuffix(".alpha").removesuffix(".lora"): float(tensors[name]) for name in numbers}
    factors = {name: tensor for name, tensor in tensors.items() if name not in numbers}
    return _File(factors, alphas, _metadata(header, prefix, path))


def _metadata(header: Mapping[str, str], prefix: str, path: Path) -> dict[str, Any] | None:
    """The description that diffusers writes into a file's header; None if there is none."""
    if METADATA not in header:
        return None
    try:
        entries = json.loads(header[METADATA]).items()
    except (ValueError, AttributeError) as error:
        raise ModelError(f"The entry {METADATA} in the header of {path} is damaged.") from error
    return {name.removeprefix(f"{prefix}."): value for name, value in entries}


def _of_kohya(weights: Mapping[str, Tensor], module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Tensors under diffusers' names of layers."""
    places = {f"lora_unet_{name.replace('.', '_')}": name for name, _ in module.named_modules()}
    renamed = {}
    for name, weight in weights.items():
        layer, _, side = name.partition(".")
        if not layer.startswith("lora_unet_"):
            renamed[f"text_encoder.{name}" if layer.startswith("lora_te") else name] = weight
        elif layer not in places:
            raise _other_model(path, f"this one has no layer {layer} (kohya's format)")
        else:
            renamed[f"{places[layer]}.{KOHYA.get(side, side)}"] = weight
    return renamed


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}). Copy it again.") from error


def _ranks(factors: Mapping[str, Tensor], module: nn.Module, folder: Path) -> dict[str, int]:
    """The rank of each layer; a ModelError for weights of another network, by name and shape."""
    if strange := [name for name in factors if not name.endswith(FACTORS)]:
        raise ModelError(
            f"The LoRA in {folder} holds {_listed(strange)}; expected only lora_A and lora_B of layers."
        )
    names = dict.fromkeys(name.rpartition(".lora_")[0] for name in factors)
    if not names:
        raise ModelError(f"The LoRA in {folder} is empty.")
    layers = dict(module.named_modules())
    return {name: _rank(name, layers.get(name), factors, folder) for name in names}


def _rank(name: str, layer: nn.Module | None, factors: Mapping[str, Tensor], folder: Path) -> int:
    weight: Any = getattr(layer, "weight", None)
    if weight is None:
        raise _other_model(folder, f"this one has no layer {name}")
    pair = [factors[name + side] for side in FACTORS if name + side in factors]
    if len(pair) < 2:
        raise ModelError(f"The LoRA in {folder} has only one of the two factors of {name}. Copy it again.")
    if not all(factor.is_floating_point() for factor in pair):
        raise ModelError(f"The LoRA in {folder} has factors in {pair[0].dtype}; expected floating numbers.")
    down, up, whole = (tuple(tensor.shape) for tensor in (*pair, weight))
    rank = down[0] if down else 0
    if rank == 0 or (down, up) != ((rank, *whole[1:]), (whole[0], rank, *(1 for _ in whole[2:]))):
        raise _other_model(folder, f"its factors of {name} are {down} and {up}, and the layer is {whole}")
    return rank


def _config(ranks: Mapping[str, int], file: _File, folder: Path) -> dict[str, Any]:
    """Keywords of peft.LoraConfig."""
    first = next(iter(ranks.values()))
    if loose := sorted(file.alphas.keys() - ranks.keys()):
        raise ModelError(f"The LoRA in {folder} has an α of {_listed(loose)}, which it does not adapt.")
    if file.alphas or file.description is None:
        alphas = {name: file.alphas.get(name, rank) for name, rank in ranks.items()}
        scales: dict[str, Any] = {"lora_alpha": 1, "alpha_pattern": {_only(n): a for n, a in alphas.items()}}
    else:
        scales = {name: file.description[name] for name in SCALES if name in file.description}
        scales["alpha_pattern"] = scales.get("alpha_pattern") or {}
    pattern = scales["alpha_pattern"]
    for alpha in (
        scales.get("lora_alpha", 1),
        *(pattern.values() if isinstance(pattern, dict) else [pattern]),
    ):
        if not (isinstance(alpha, int | float) and math.isfinite(alpha)):
            raise ModelError(f"The α of the LoRA in {folder} is {alpha}; expected a finite number.")
    return scales | {
        "r": first,
        "rank_pattern": {_only(name): rank for name, rank in ranks.items() if rank != first},
        "target_modules": list(ranks),
        "init_lora_weights": _start(file.description or {}, folder),
    }


def _start(description: Mapping[str, Any], folder: Path) -> str | bool:
    """True for a start that leaves the base as it is, else the name by which PEFT repeats it.

    Raises a ModelError for what is not plain LoRA, and for a start that cannot be repeated."""
    further = {name for name, value in description.items() if value and name not in HARMLESS | {"bias"}}
    further |= {"bias"} if description.get("bias") not in (None, "none") else set()
    if further:
        raise ModelError(f"The LoRA in {folder} has {_listed(sorted(further))}; expected plain LoRA.")
    start = description.get("init_lora_weights")
    if isinstance(start, bool | None) or str(start).lower() in PLAIN:
        return True
    if str(start).lower() in SUBTRACTED:
        return str(start).lower()
    raise ModelError(
        f"The LoRA in {folder} began as '{start}', which changed the base's weights, and how is not in its "
        "files. Convert it to plain LoRA when saving: PEFT's path_initial_model_for_weight_conversion."
    )


def _only(layer: str) -> str:
    """The pattern of PEFT that matches this layer alone."""
    return f"^{re.escape(layer)}$"


def _listed(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _other_model(path: Path, reason: str) -> ModelError:
    return ModelError(f"The LoRA in {path} was trained on another model: {reason}.")
