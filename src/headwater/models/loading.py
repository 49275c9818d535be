"""Opening a model: from a diffusers pipeline's folder or a bare network's, the family recognised from its config."""

import importlib
from dataclasses import replace
from pathlib import Path

import torch

from headwater.diffusion.denoiser import Denoiser, evenly
from headwater.diffusion.schedule import linear
from headwater.errors import ModelError
from headwater.models import lora as adapters
from headwater.models.autoencoder import NAMES, autoencoder, factor_of
from headwater.models.folders import EXPECTED, Pipeline, fingerprint, json_of, module_of, schedule_of
from headwater.models.kinds import Kind

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
) -> Denoiser:
    """The model in a diffusers pipeline folder, or in a bare network's folder (then the schedule is DDPM's linear one).

    `lora`: a folder of LoRA weights that were trained on it; they alone are then the parameters. A folder of those that tells what
    they were trained on is opened with that. `size` is the height and width of the pictures, of networks that make any. So
    many of its `checkpoints`, evenly spaced, come with it, the last one itself. Those beside the model (of a LoRA: beside that) are
    taken for its own only if the last has its weights.
    """
    if lora is None and (told := adapters.told(Path(folder))) is not None:
        return load(_there(told.base, Path(folder)), device, checkpoints, lora=folder, size=size or told.size)
    pipeline = Pipeline.of(folder)
    model = _whole(pipeline, device, lora, size)
    if not checkpoints:
        return model
    home = Path(folder if lora is None else lora)
    folders = checkpoint_folders(home)
    some = evenly(folders, checkpoints)
    found = [load(each, device) if lora is None else _whole(pipeline, device, each, size) for each in some]
    if found and found[-1].fingerprint != model.fingerprint:
        found = [*found[:-1], model] if folders[0].parent.parent == home else []
    return replace(model, checkpoints=tuple(found))


def _whole(pipeline: Pipeline, device: str, lora: str | Path | None, size: tuple[int, int] | None) -> Denoiser:
    """Network, schedule and encoders."""
    place, kind = network_of(pipeline)
    module = module_of(place, device)
    if lora is not None:
        adapters.attach(module, Path(lora), kind.part)
    shape = kind.shape(module.config)
    if size is not None and kind.any_size:
        shape = (shape[0], *_of_pictures(pipeline, size))
    schedule = schedule_of(pipeline.part("scheduler")) if has_schedule(pipeline.path) else linear()
    latent, text = autoencoder(pipeline, shape[1:], device), kind.text(pipeline, device)
    further = [each.fingerprint for each in (latent, text) if each is not None]
    torch.nn.Module.to(module, torch.device(device))
    return Denoiser(
        module,
        schedule,
        shape,
        fingerprint(module, schedule, *further),
        kind.classes(module.config),
        family=kind,
        latent=latent,
        text=text,
    )


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


def holds(folder: Path) -> bool:
    """Whether a model has been saved in the folder: its network, or adapters."""
    return (folder / "unet").is_dir() or adapters.holds(folder)


def named(base: str | Path) -> str:
    """The name that a model is opened by from anywhere: of a folder that is here, where it is; else as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else str(base)


def has_schedule(folder: str | Path) -> bool:
    """Whether the folder, or that of what its adapters are of, names its own noise schedule (else `load` takes DDPM's)."""
    told = adapters.told(Path(folder))
    return (Path(folder if told is None else told.base) / "scheduler").is_dir()
