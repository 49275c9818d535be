"""Opening a model: from a diffusers pipeline's folder or a bare network's, the family recognised from its config."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from headwater.diffusion.denoiser import Denoiser, evenly
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError
from headwater.models import hub
from headwater.models import lora as adapters
from headwater.models.architecture import Kind
from headwater.models.autoencoder import NAMES, autoencoder, factor_of
from headwater.models.folders import EXPECTED, Pipeline, fingerprint, halved, json_of, module_of, schedule_of

KINDS = {  # diffusers' class of the network: its kind
    "UNet2DModel": "headwater.models.unet:PixelUNet",
    "UNet2DConditionModel": "headwater.models.stable:StableDiffusion",
    "DiTTransformer2DModel": "headwater.models.dit:DiT",
    "SD3Transformer2DModel": "headwater.models.sd3:StableDiffusion3",
}
PARTS = ("unet", "transformer")  # what pipelines call the network


def load(
    folder: str | Path,
    device: str = "cpu",
    checkpoints: int = 0,
    *,
    lora: str | Path | None = None,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
) -> Denoiser:
    """The model in a diffusers pipeline folder or of a name on the hub, or in a bare network's folder (then the schedule is DDPM's
    linear one).

    `lora`: a folder, or a name on the hub, of LoRA weights that were trained on it; they alone are then the parameters. A folder of
    those that tells what they were trained on is opened with that. `size` is the height and width of the pictures, of networks that
    make any. `dtype` is that of the network's weights, float32, bfloat16 or float16; adapters, auto-encoder and text encoder stay
    in float32. So many of its `checkpoints`, evenly spaced, come with it, the last one itself. Those beside the model (of a LoRA:
    beside that) are taken for its own only if the last has its weights.
    """
    if lora is None and (told := adapters.told(Path(folder))) is not None:
        return load(_there(told.base, Path(folder)), device, checkpoints, lora=folder, size=size or told.size, dtype=dtype)
    pipeline = Pipeline.of(folder)
    base = _whole(pipeline, device, size, dtype)
    home = pipeline.path if lora is None else hub.place(lora, hub.adapters)
    model = base if lora is None else _adapted(base, home)
    if not checkpoints:
        return model
    folders = checkpoint_folders(home)
    some = evenly(folders, checkpoints)
    found = [load(each, device, dtype=dtype) if lora is None else _adapted(base, each) for each in some]
    if found and found[-1].fingerprint != model.fingerprint:
        found = [*found[:-1], model] if folders[0].parent.parent == home else []
    return replace(model, checkpoints=tuple(found))


def _whole(pipeline: Pipeline, device: str, size: tuple[int, int] | None, dtype: str) -> Denoiser:
    """Network, schedule and encoders."""
    place, kind = network_of(pipeline)
    module = module_of(place, device, dtype)
    shape, classes = kind.shape(module.config), kind.classes(module.config)
    if size is not None and kind.any_size:
        shape = (shape[0], *_of_pictures(pipeline, size))
    told = schedule_folder(pipeline.path)
    schedule = linear() if told is None else schedule_of(told if told == pipeline.path else pipeline.part("scheduler"))
    latent, text = autoencoder(pipeline, shape[1:], device), kind.text(pipeline, device)
    model = Denoiser(module, schedule, shape, "", classes, family=kind, latent=latent, text=text)
    return _with(model, module)


def _adapted(base: Denoiser, folder: Path) -> Denoiser:
    """The base with the adapters in a folder beside its weights, which are shared."""
    kind: Any = base.family
    module = adapters.beside(base.module)
    adapters.attach(module, folder, kind.part)
    return _with(base, module)


def _with(model: Denoiser, module: torch.nn.Module) -> Denoiser:
    """The model with this network, and the fingerprint of all that it then is."""
    further = [each.fingerprint for each in (model.latent, model.text) if each is not None]
    return replace(model, module=module, fingerprint=fingerprint(module, model.schedule, *further))


def _there(base: str, folder: Path) -> str:
    """The base of the adapters in the folder; a ModelError that names it where it cannot be opened."""
    try:
        Pipeline.of(base)
    except ModelError as error:
        raise ModelError(
            f"The adapters in {folder} were trained on {base}, which cannot be opened: {error} Bring it back, or write its new "
            f"place into {folder / adapters.TOLD}."
        ) from error
    return base


def network_of(pipeline: Pipeline) -> tuple[Path, Kind]:
    """The folder of the pipeline's network, and its kind."""
    name = next((name for name in PARTS if (pipeline.path / name).is_dir()), None)
    place = pipeline.path if name is None else pipeline.part(name) if pipeline.index else pipeline.path / name
    config = json_of(place / "config.json", EXPECTED)
    found = config.get("_class_name", "UNet2DModel")
    if found not in KINDS:
        raise ModelError(f"The model in {pipeline.path} is a {found}; expected one of {', '.join(KINDS)}.")
    module, _, kind = KINDS[found].partition(":")
    return place, getattr(importlib.import_module(module), kind)()


def _of_pictures(pipeline: Pipeline, size: tuple[int, int]) -> tuple[int, int]:
    """The height and width of the latents of pictures of this size; or itself, without an auto-encoder."""
    name = next((name for name in NAMES if pipeline.has(name)), None)
    factor = 1 if name is None else factor_of(json_of(pipeline.part(name) / "config.json", EXPECTED))
    if any(side % factor for side in size):
        raise ModelError(
            f"The pictures are {size[0]}×{size[1]}; the model's auto-encoder takes sides that are multiples of {factor}."
        )
    return size[0] // factor, size[1] // factor


def checkpoint_folders(folder: Path) -> list[Path]:
    """The folders `step-*` of a model's checkpoints, the earliest first: in `checkpoints` within it, else beside it."""
    for home in (folder / "checkpoints", folder.resolve().parent / "checkpoints"):
        found = [(step, each) for each in home.glob("step-*") if (step := each.name.removeprefix("step-")).isdigit()]
        if found:
            return [each for _, each in sorted(found, key=lambda pair: int(pair[0]))]
    return []


def schedule_folder(folder: Path) -> Path | None:
    """Where the model says its noise schedule: in a folder of its own, or, the first pipelines, in the model's; or nowhere (then
    `load` takes DDPM's)."""
    if (folder / "scheduler").is_dir():
        return folder / "scheduler"
    return folder if (folder / "scheduler_config.json").exists() else None


def notes_on(folder: Path) -> list[str]:
    """What is to be told of a model's folder before it is opened: what it does not say, and what it has at half precision alone."""
    told = adapters.told(folder)
    folder, found = folder if told is None else hub.place(told.base, hub.pipeline), []
    if folder.is_dir() and schedule_folder(folder) is None:
        found.append(f"{folder} names no noise schedule: the linear one of DDPM is assumed (β 1e-4 to 0.02, T = 1000).")
    half = [each.name for each in (folder, *sorted(folder.glob("*/"))) if halved(each)]
    if half:
        found.append(f"{folder} has weights of the variant fp16 alone ({', '.join(half)}): they are as exact as float16 is.")
    return found


def holds(folder: Path) -> bool:
    """Whether a model has been saved in the folder: its network, or adapters."""
    return (folder / "unet").is_dir() or adapters.holds(folder)


def named(base: str | Path) -> str:
    """The name that a model is opened by from anywhere: of a folder that is here, where it is; else as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else str(base)
