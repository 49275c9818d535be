"""UNet2DModel in diffusers' formats: named configurations, loading, saving."""

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from headwater import seeds
from headwater.diffusion.denoiser import Denoiser, evenly
from headwater.diffusion.schedule import Schedule, linear
from headwater.errors import ModelError, NonFiniteError, StorageError, unknown

PREDICTIONS = ("epsilon", "v_prediction", "sample")

# Zheng et al. 2023 (D-TRAK), section 4.2. The first count is the paper's network; the authors' code adds scale_shift.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "digits": {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
        "attention_head_dim": None,
    },
    "cifar": {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "celeba": {
        "sample_size": 64,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "attention_head_dim": 8,
    },
}
for _name in ("cifar", "celeba"):
    CONFIGURATIONS[f"{_name}-scale-shift"] = CONFIGURATIONS[_name] | {
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 32,
    }


def configuration(name: str, **changes: Any) -> dict[str, Any]:
    """The named configuration with `changes`, as keyword arguments of UNet2DModel."""
    if name not in CONFIGURATIONS:
        raise unknown("model configuration", name, CONFIGURATIONS)
    return CONFIGURATIONS[name] | changes


@dataclass(frozen=True, eq=False)
class Network:
    """What there is to train: the keyword arguments of UNet2DModel, and the schedule with what the network predicts."""

    config: Mapping[str, Any]
    schedule: Schedule = field(default_factory=linear)

    def fresh(self, seed: int) -> UNet2DModel:
        """The network with the initial weights of stream (seed, "weights")."""
        with torch.random.fork_rng(devices=[]):  # diffusers' constructors draw from torch's global generator
            torch.default_generator.manual_seed(seeds.key(seed, "weights", bits=64) >> 1)
            return UNet2DModel(**self.config)


def new(config: Mapping[str, Any], seed: int, schedule: Schedule | None = None) -> Denoiser:
    """An untrained model with the initial weights of stream (seed, "weights")."""
    network = Network(config, schedule or linear())
    return of_module(network.fresh(seed), network.schedule)


def of_module(module: UNet2DModel, schedule: Schedule) -> Denoiser:
    """The Denoiser around a UNet2DModel, with its fingerprint. Raises NonFiniteError where a weight is NaN or inf."""
    for name, weight in module.state_dict().items():
        if not torch.isfinite(weight).all():
            raise NonFiniteError(f"The weight '{name}' holds NaN or infinity. The file is damaged or the training diverged.")
    size, channels = module.config["sample_size"], module.config["in_channels"]
    if size is None:
        raise ModelError("The model's config.json names no sample_size. Add the side of its pictures there.")
    height, width = (size, size) if isinstance(size, int) else size
    shape = (channels, height, width)
    return Denoiser(module, schedule, shape, fingerprint(module, schedule), module.config.get("num_class_embeds"))


def fingerprint(module: torch.nn.Module, schedule: Schedule) -> str:
    """A hash of all weights with their names, of the schedule and of what the network predicts."""
    digest = hashlib.blake2b(schedule.beta.tobytes() + schedule.prediction.encode(), digest_size=16)
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load(folder: str | Path, device: str = "cpu", checkpoints: int = 0) -> Denoiser:
    """The model in a diffusers pipeline folder, or in a bare UNet folder (then the schedule is DDPM's linear one).

    So many of its `checkpoints`, evenly spaced, come with it, the last one itself. Those beside the model are taken for its own
    only if the last has its weights.
    """
    folder = Path(folder)
    if checkpoints:
        model, folders = load(folder, device), checkpoint_folders(folder)
        found = [load(each, device) for each in evenly(folders, checkpoints)]
        if found and found[-1].fingerprint != model.fingerprint:
            found = [*found[:-1], model] if folders[0].parent.parent == folder else []
        return replace(model, checkpoints=tuple(found))
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}. Expected a diffusers pipeline or UNet2DModel folder.")
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = _json(unet / "config.json", "a diffusers pipeline or UNet2DModel folder")
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ModelError(f"The model in {folder} is a {kind}; expected a UNet2DModel.")
    made, channels = config.get("out_channels", 3), config.get("in_channels", 3)
    if made != channels:
        raise ModelError(f"The model predicts {made} channels for pictures of {channels}; learned variances are not supported.")
    weights = OrderedDict(_weights(unet))
    try:
        with torch.random.fork_rng(devices=[]):  # diffusers' constructors draw from torch's global generator
            module = UNet2DModel.from_config(config)
        assert isinstance(module, UNet2DModel)
        module._fix_state_dict_keys_on_load(weights)  # attention had other names before diffusers 0.17
        module.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        told = " ".join(str(error).split())[:300]
        raise ModelError(f"The weights in {unet} do not fit its config.json: {told}") from error
    schedule = _schedule(folder / "scheduler") if (folder / "scheduler").is_dir() else linear()
    torch.nn.Module.to(module, torch.device(device))
    return of_module(module, schedule)


def save(model: Denoiser, folder: str | Path) -> None:
    """Write a diffusers DDPMPipeline folder that `load` and diffusers both read; `model_index.json` comes last."""
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    assert isinstance(model.module, UNet2DModel)
    schedule = model.schedule
    plain = np.array_equal(schedule.beta, linear(schedule.T).beta)
    betas = None if plain else schedule.beta.tolist()
    scheduler = DDPMScheduler(schedule.T, 1e-4, 0.02, trained_betas=betas, prediction_type=schedule.prediction)
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.module.save_pretrained(part / "unet")
        scheduler.save_pretrained(part / "scheduler")
        (part / "model_index.json").write_text(json.dumps(index, indent=2))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StorageError(
            f"Could not write the model {folder}: {error}. Free some space or name another folder, then run the same command again."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").unlink(missing_ok=True)
    for name in ("scheduler", "unet"):  # weights without their schedule would be taken for DDPM's
        shutil.rmtree(folder / name, ignore_errors=True)
        (part / name).replace(folder / name)
    (part / "model_index.json").replace(folder / "model_index.json")
    part.rmdir()


def checkpoint_folders(folder: Path) -> list[Path]:
    """The folders `step-*` of a model's checkpoints, the earliest first: in `checkpoints` within it, else beside it."""
    for home in (folder / "checkpoints", folder.resolve().parent / "checkpoints"):
        found = [(step, each) for each in home.glob("step-*") if (step := each.name.removeprefix("step-")).isdigit()]
        if found:
            return [each for _, each in sorted(found, key=lambda pair: int(pair[0]))]
    return []


def has_schedule(folder: str | Path) -> bool:
    """Whether the folder names its own noise schedule (else `load` takes DDPM's)."""
    return (Path(folder) / "scheduler").is_dir()


def _json(path: Path, expected: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(f"There is no {path.name} in {path.parent}. Expected {expected}.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: the file is damaged.") from error


def _weights(folder: Path) -> dict[str, Tensor]:
    """The state dict from safetensors. A pickled .bin is refused: loading never runs code from a file."""
    path = folder / "diffusion_pytorch_model.safetensors"
    if not path.exists():
        if list(folder.glob("*.bin")) or list(folder.glob("*.pt")) or list(folder.glob("*.ckpt")):
            raise ModelError(
                f"The weights in {folder} are pickled, and unpickling can run code. Convert them to safetensors first."
            )
        raise ModelError(f"There is no {path.name} in {folder}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}). Copy or download it again.") from error


def _schedule(folder: Path) -> Schedule:
    config = _json(folder / "scheduler_config.json", "a diffusers scheduler")
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ModelError(f"The scheduler predicts '{kind}'; expected one of {', '.join(PREDICTIONS)}.")
    if config.get("trained_betas"):
        return Schedule(np.array(config["trained_betas"], np.float64), kind)
    name = config.get("_class_name", "The scheduler")
    if "beta_schedule" not in config:
        raise ModelError(
            f"{name} in {folder} names no beta_schedule; expected a scheduler with discrete noise levels, such as DDPM's."
        )
    if config["beta_schedule"] == "linear" and not config.get("rescale_betas_zero_snr"):
        return linear(config["num_train_timesteps"], config["beta_start"], config["beta_end"], kind)
    known = {key: config[key] for key in DDPMScheduler().config if key in config and not key.startswith("_")}
    try:
        betas = DDPMScheduler(**known).betas
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"{name} in {folder} has no noise schedule that DDPM knows: {error}") from error
    return Schedule(betas.double().numpy(), kind)
