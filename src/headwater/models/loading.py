"""Opening a model from a pipeline's folder or a bare network's; the config tells the family."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from headwater.diffusion.denoiser import Denoiser, evenly
from headwater.diffusion.schedule import Schedule, linear
from headwater.errors import ModelError
from headwater.models import hub
from headwater.models import lora as adapters
from headwater.models.architecture import Kind
from headwater.models.autoencoder import COMPONENTS, autoencoder, factor_of, notes_on_units
from headwater.models.folders import (
    EXPECTED,
    Pipeline,
    class_of,
    fingerprint,
    json_of,
    module_of,
    only_fp16,
    schedule_of,
)
from headwater.models.lora_files import has_lora_weights

NETWORKS = {  # diffusers' class of the network: its kind
    "UNet2DModel": "headwater.models.unet:PixelUNet",
    "UNet2DConditionModel": "headwater.models.stable:StableDiffusion",
    "DiTTransformer2DModel": "headwater.models.dit:DiT",
    "SD3Transformer2DModel": "headwater.models.sd3:StableDiffusion3",
}
NETWORK_PARTS = ("unet", "transformer")  # the network's names in pipelines


def load(
    folder: str | Path,
    device: str = "cpu",
    checkpoints: int = 0,
    *,
    lora: str | Path | None = None,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
) -> Denoiser:
    """The model in a pipeline's folder, on the hub, or in a bare network's folder (with DDPM's schedule).

    `lora`: a folder, or a name on the hub, of LoRA weights trained on it, which are then the only parameters.
    If the LoRA folder records its base model, that is opened too. `size` sets height and width where the
    network accepts any. `dtype` of the network's weights is float32, bfloat16 or float16; adapters and
    encoders stay in float32. `checkpoints`: also load that many earlier states now, evenly spaced, ending
    with the model itself; those in a folder beside the model (or LoRA) only if the last of them has its
    weights. Methods along training load them when they need them.
    """
    if lora is None and (record := adapters.read_base(Path(folder))) is not None:
        name = _checked(record.base, Path(folder))
        return load(name, device, checkpoints, lora=folder, size=size or record.size, dtype=dtype)
    pipeline = Pipeline.of(folder)
    base = _without_adapters(pipeline, device, size, dtype)
    home = pipeline.path if lora is None else hub.place(lora, hub.adapter_files)
    model = base if lora is None else _adapted(base, home)
    model = replace(model, earlier=partial(_earlier, base, home, lora is not None))
    return model.with_checkpoints(checkpoints)


def _earlier(base: Denoiser, home: Path, is_adapted: bool, model: Denoiser, count: int) -> list[Denoiser]:
    """`count` checkpoints of the model in the folder `home`, the last of them the model itself; none if those
    beside the folder are of another model. They share the base's encoders."""
    folders = checkpoint_folders(home)
    states = [
        _adapted(base, path) if is_adapted else _with(base, _network(path, base))
        for path in evenly(folders, count)
    ]
    if states and states[-1].fingerprint != model.fingerprint:
        states = [*states[:-1], model] if folders[0].parent.parent == home else []
    return [replace(state, memory=model.memory) for state in states]


def _network(folder: Path, like: Denoiser) -> torch.nn.Module:
    """The network in a folder, with the device and dtype of another model's."""
    place, _ = network_of(Pipeline.of(folder))
    return module_of(place, str(like.device), str(like.dtype).removeprefix("torch."))


def _without_adapters(pipeline: Pipeline, device: str, size: tuple[int, int] | None, dtype: str) -> Denoiser:
    """The pipeline's network with its schedule and encoders."""
    place, kind = network_of(pipeline)
    module = module_of(place, device, dtype)
    shape, classes = kind.shape(module.config), kind.classes(module.config)
    if size is not None and kind.any_size:
        shape = (shape[0], *_latent_size(pipeline, size))
    schedule = _schedule(pipeline)
    latent, text = autoencoder(pipeline, shape, device), kind.text(pipeline, device)
    model = Denoiser(module, schedule, shape, "", classes, family=kind, latent=latent, text=text)
    return _with(model, module)


def _schedule(pipeline: Pipeline) -> Schedule:
    """The pipeline's noise schedule; DDPM's if it names none."""
    folder, entry = schedule_folder(pipeline.path), pipeline.index.get("scheduler")
    if folder is None:
        return linear()
    if folder != pipeline.path:
        folder = pipeline.part("scheduler")
    return schedule_of(folder, entry[1] if isinstance(entry, list) else None)


def _adapted(base: Denoiser, folder: Path) -> Denoiser:
    """The base with the adapters in `folder`; its weights are shared."""
    kind: Any = base.family
    module = adapters.beside(base.module)
    adapters.attach(module, folder, kind.part)
    return _with(base, module)


def _with(model: Denoiser, module: torch.nn.Module) -> Denoiser:
    """The model with `module` as its network, and the new fingerprint."""
    further = [encoder.fingerprint for encoder in (model.latent, model.text) if encoder is not None]
    further += adapters.scales(module)
    return replace(model, module=module, fingerprint=fingerprint(module, model.schedule, *further))


def _checked(base: str, folder: Path) -> str:
    """The name of the base of the adapters in `folder`; a ModelError with both if it cannot be opened."""
    try:
        Pipeline.of(base)
    except ModelError as error:
        raise ModelError(
            f"The adapters in {folder} were trained on {base}, which cannot be opened: {error} Restore it, "
            f"or write its new place into {folder / adapters.BASE_FILE}.",
            hint=error.hint,
        ) from error
    return base


def network_of(pipeline: Pipeline) -> tuple[Path, Kind]:
    """The folder of the pipeline's network, and its kind."""
    part = next((part for part in NETWORK_PARTS if (pipeline.path / part).is_dir()), None)
    place = pipeline.path if part is None else pipeline.part(part) if pipeline.index else pipeline.path / part
    name = class_of(place)
    if name not in NETWORKS:
        raise ModelError(f"The model in {pipeline.path} is a {name}; expected one of {', '.join(NETWORKS)}.")
    module, _, kind = NETWORKS[name].partition(":")
    return place, getattr(importlib.import_module(module), kind)()


def _latent_size(pipeline: Pipeline, size: tuple[int, int]) -> tuple[int, int]:
    """The latents' height and width for pictures of this size; without an auto-encoder the size itself."""
    name = next((name for name in COMPONENTS if pipeline.has(name)), None)
    factor = 1 if name is None else factor_of(json_of(pipeline.part(name) / "config.json", EXPECTED))
    if any(side % factor for side in size):
        raise ModelError(
            f"The pictures are {size[0]}×{size[1]}; the model's auto-encoder takes sides that are multiples "
            f"of {factor}."
        )
    return size[0] // factor, size[1] // factor


def checkpoint_folders(folder: Path) -> list[Path]:
    """The model's checkpoint folders `step-*`, earliest first: in `checkpoints` within it, else beside it."""
    for home in (folder / "checkpoints", folder.resolve().parent / "checkpoints"):
        steps = [
            (step, path)
            for path in home.glob("step-*")
            if (step := path.name.removeprefix("step-")).isdigit()
        ]
        if steps:
            return [path for _, path in sorted(steps, key=lambda pair: int(pair[0]))]
    return []


def schedule_folder(folder: Path) -> Path | None:
    """The folder of the model's noise schedule: `scheduler`, or for the first pipelines the model's own; None
    if it has none (then `load` takes DDPM's)."""
    if (folder / "scheduler").is_dir():
        return folder / "scheduler"
    return folder if (folder / "scheduler_config.json").exists() else None


def notes_on(folder: Path) -> list[str]:
    """Notes for the user on a model's folder: an assumed schedule, and weights at half precision only."""
    record = adapters.read_base(folder)
    folder, notes = folder if record is None else hub.place(record.base, hub.pipeline_files), []
    if folder.is_dir() and schedule_folder(folder) is None:
        notes.append(
            f"{folder} names no noise schedule: the linear one of DDPM is assumed (β 1e-4 to 0.02, T = 1000)."
        )
    if folder.is_dir():
        pipeline = Pipeline.of(folder)
        notes += notes_on_units(pipeline, class_of(network_of(pipeline)[0]))
    half = [path.name for path in (folder, *sorted(folder.glob("*/"))) if only_fp16(path)]
    if half:
        notes.append(
            f"{folder} has only weights of the variant fp16 ({', '.join(half)}): they have float16's "
            "precision."
        )
    return notes


def has_model(folder: Path) -> bool:
    """Whether a network or adapters are saved in the folder."""
    return (folder / "unet").is_dir() or has_lora_weights(folder)


def absolute_name(base: str | Path) -> str:
    """The model's name from any working directory: an existing folder's absolute path, else unchanged."""
    return str(Path(base).resolve()) if Path(base).is_dir() else str(base)
