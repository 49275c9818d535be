"""Diffusers folders, validated: weights only from safetensors, code only from installed libraries."""

import hashlib
import importlib
import json
import math
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from diffusers import DDPMScheduler, ModelMixin, SchedulerMixin
from jaxtyping import Float64
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headwater.diffusion.schedule import Flow, Schedule
from headwater.errors import ModelError, NonFiniteError, unknown
from headwater.models import hub

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
OTHER_PATHS = {  # what a scheduler says of networks that see other noise levels or another time than t
    "use_flow_sigmas": True,
    "invert_sigmas": True,
    "timestep_type": "continuous",
}
STEM = "diffusion_pytorch_model"
EXPECTED = "a diffusers pipeline folder, or one network's"
FP16 = ".fp16"  # diffusers' variant of weights, read if there is no other


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's folder and its `model_index.json`; for a bare network's folder the index is empty."""

    path: Path
    index: Mapping[str, Any]

    @classmethod
    def of(cls, path: str | Path) -> "Pipeline":
        """The pipeline in a folder or of a name on the hub; a ModelError if there is none."""
        path = hub.place(path, hub.pipeline_files)
        if not path.is_dir():
            raise ModelError(
                f"There is no model folder {path}. Expected {EXPECTED}; a model of the hub is written "
                f"hf:owner/name, such as {hub.EXAMPLE_MODEL}."
            )
        index = path / "model_index.json"
        return cls(path, json_of(index, EXPECTED) if index.exists() else {})

    def has(self, name: str) -> bool:
        """Whether the pipeline has this component: by its index, or without one by its folder."""
        entry = self.index.get(name)
        return isinstance(entry, list) and entry[0] is not None if self.index else (self.path / name).is_dir()

    def part(self, name: str) -> Path:
        """The folder of a component; a ModelError if it is missing or runs code of its own."""
        if not (self.has(name) and (self.path / name).is_dir()):
            raise ModelError(
                f"The pipeline {self.path} has no {name}; expected a folder of that name, named in its "
                "model_index.json."
            )
        entry = self.index.get(name)
        if isinstance(entry, list) and entry[0] not in ("diffusers", "transformers"):
            raise ModelError(
                f"The {name} of {self.path} is code of its own ({entry[0]}.{entry[1]}), and loading never "
                "runs code from a model. Expected a component of diffusers or transformers."
            )
        return self.path / name


def json_of(path: Path, expected: str) -> dict[str, Any]:
    """The file's content; a ModelError if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"There is no {path.name} in {path.parent}. Expected {expected}.") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: the file is damaged.") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a {type(content).__name__}, not an object in braces. Expected {expected}."
        )
    return content


def class_of(folder: Path) -> Any:
    """The name of diffusers' class of the network in a folder, by its config.json."""
    return json_of(folder / "config.json", EXPECTED).get("_class_name", "UNet2DModel")


def module_of(folder: Path, device: str = "cpu", dtype: str = "float32") -> nn.Module:
    """The network in a diffusers folder, from its config.json and all of its weights, in one of DTYPES."""
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    config, name = json_of(folder / "config.json", EXPECTED), class_of(folder)
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, ModelMixin)):
        raise ModelError(f"The model in {folder} is a {name}, which diffusers does not have.")
    weights = OrderedDict(weights_of(folder))
    try:
        with torch.random.fork_rng(devices=[]):  # diffusers' constructors draw from torch's global generator
            module: Any = cast(Any, kind).from_config(config)
        module._fix_state_dict_keys_on_load(weights)  # attention had other names before diffusers 0.17
        module.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"The weights in {folder} do not fit its config.json: {reason}") from error
    nn.Module.to(module, torch.device(device), DTYPES[dtype])
    return module


def weights_of(folder: Path, stem: str = STEM) -> dict[str, Tensor]:
    """The state dict from safetensors, in one file or several. A pickled .bin is refused:
    loading never runs code from a file."""
    variant = FP16 if only_fp16(folder) else ""
    path, index = folder / f"{stem}{variant}.safetensors", folder / f"{stem}.safetensors.index{variant}.json"
    if not path.exists() and index.exists():
        places = json_of(index, "an index of weight files").get("weight_map")
        if not (isinstance(places, dict) and all(isinstance(place, str) for place in places.values())):
            raise ModelError(f"{index} has no weight_map; expected the file of each weight.")
        names = sorted({*places.values()})
        return {name: weight for part in names for name, weight in _read(folder / Path(part).name).items()}
    if not path.exists():
        if any(list(folder.glob(pattern)) for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")):
            raise ModelError(
                f"The weights in {folder} are pickled, and unpickling can run code. Convert them to "
                "safetensors first."
            )
        raise ModelError(f"There is no {path.name} in {folder}.")
    return _read(path)


def only_fp16(folder: Path) -> bool:
    """Whether the folder's only weights are of the variant fp16."""
    return any(FP16 in name for name in hub.weight_files(path.name for path in folder.glob("*")))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}). Copy or download it again.") from error


def of_transformers(folder: Path, name: str, device: str = "cpu") -> nn.Module:
    """The network of transformers' class `name` in a folder, in float32."""
    library = libraries("transformers")
    library.utils.logging.disable_progress_bar()  # loading takes only a moment
    kind = getattr(library, name)
    try:
        with torch.random.fork_rng(
            devices=[]
        ):  # weights that are missing would be drawn from torch's global generator
            loaded: Any = kind.from_pretrained(
                folder,
                use_safetensors=True,
                variant=FP16[1:] if only_fp16(folder) else None,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The {name} in {folder} could not be read ({' '.join(str(error).split())[:200]}). Expected a "
            "whole model.safetensors that fits its config.json; pickled weights (.bin) are never loaded, "
            "convert them first."
        ) from error
    module, report = loaded
    if report["missing_keys"]:
        raise ModelError(
            f"The weights in {folder} lack {len(report['missing_keys'])} tensors, such as "
            f"{min(report['missing_keys'])}. Copy or download it again."
        )
    return module.to(device).eval()


def libraries(name: str) -> Any:
    """A library that only some models need; a missing one is a ModelError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"This model needs the `{name}` library, which is not installed: pip install 'headwater[text]'."
        ) from error


def schedule_of(folder: Path, named: str | None = None) -> Schedule:
    """The noise schedule in a scheduler's folder. What its config leaves out is the default of the class that
    it names, or else of the class that the pipeline's index names (`named`)."""
    name, kind, config = _scheduler(json_of(folder / "scheduler_config.json", "a diffusers scheduler"), named)
    for field, value in OTHER_PATHS.items():
        if config.get(field) == value:
            raise ModelError(
                f"{name} in {folder} has {field} {json.dumps(value)}, under which the network sees other "
                "noise levels or another time; expected a schedule such as DDPM's."
            )
    if name == "FlowMatchEulerDiscreteScheduler":
        return _flow(config, folder)
    predicted = config.get("prediction_type") or "epsilon"
    if predicted not in PREDICTIONS:
        raise ModelError(f"The scheduler predicts '{predicted}'; expected one of {', '.join(PREDICTIONS)}.")
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ModelError(
            f"{name} in {folder} names no beta_schedule; expected a scheduler with discrete noise levels, "
            "such as DDPM's."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy's, of what a class computes for sampling
            fields = config.keys() & signature(kind).parameters
            scheduler: Any = kind(**{field: config[field] for field in fields})
        betas = _betas(config, scheduler)
        levels = scheduler.alphas_cumprod.double().numpy()
    except Exception as error:  # a class's own code for sampling may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} in {folder} has no noise schedule that diffusers knows: {reason}"
        ) from error
    schedule, T = Schedule(betas, predicted), scheduler.config.num_train_timesteps
    if schedule.T != T:
        raise ModelError(
            f"{name} in {folder} has {schedule.T} trained_betas and num_train_timesteps {T}; expected a "
            "schedule of equally many."
        )
    if not np.allclose(schedule.alpha_bar, levels, rtol=1e-3, atol=1e-6):
        raise ModelError(
            f"{name} in {folder} has other noise levels than its β give; expected a schedule such as DDPM's."
        )
    return schedule


def _scheduler(config: dict[str, Any], named: str | None) -> tuple[str, Any, dict[str, Any]]:
    """Name and class of the scheduler (DDPM's for an unknown one); its config with the class's defaults."""
    name = config.get("_class_name") or named or "The scheduler"
    kind: Any = getattr(diffusers, str(name), None)
    if config.get("predict_epsilon") is False:  # how diffusers before 0.10 said that x is predicted
        config = {"prediction_type": "sample"} | config
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        return name, DDPMScheduler, config
    return name, kind, {field: p.default for field, p in signature(kind).parameters.items()} | config


def _betas(config: Mapping[str, Any], scheduler: Any) -> Float64[np.ndarray, " T"]:
    """β of the scheduler, in float64 where a line or a table gives them."""
    if config.get("rescale_betas_zero_snr"):
        return scheduler.betas.double().numpy()
    if config.get("trained_betas") is not None:
        return np.array(config["trained_betas"], np.float64)
    if config["beta_schedule"] == "linear":
        start, end = scheduler.config.beta_start, scheduler.config.beta_end
        return np.linspace(start, end, scheduler.config.num_train_timesteps)
    return scheduler.betas.double().numpy()


def _flow(config: Mapping[str, Any], folder: Path) -> Flow:
    """σ = s·u/(1 + (s−1)·u), u = (t+1)/T, s the scheduler's shift (Esser et al. 2024, section 5.3.2).

    With dynamic shifting only samplers shift, by the picture's size: s = 1."""
    T, shift = config["num_train_timesteps"], 1.0 if config["use_dynamic_shifting"] else config["shift"]
    if not (isinstance(T, int) and T > 0 and isinstance(shift, int | float) and 0 < shift < math.inf):
        raise ModelError(
            f"The scheduler in {folder} has {T} timesteps and shift {shift}; expected positive numbers."
        )
    u = np.arange(1, T + 1) / T
    return Flow(shift * u / (1 + (shift - 1) * u))


def fingerprint(module: nn.Module, schedule: Schedule | None = None, *further: str) -> str:
    """A hash of all weights and their names, the schedule and its prediction type, and `further` words.

    Raises NonFiniteError if a weight is NaN or inf.
    """
    digest = hashlib.blake2b(b"" if schedule is None else schedule.fingerprinted(), digest_size=16)
    for name, weight in sorted(module.state_dict().items()):
        if not torch.isfinite(weight.float() if weight.element_size() == 1 else weight).all():  # float8
            raise NonFiniteError(
                f"The weight '{name}' holds NaN or infinity. The file is damaged or the training diverged."
            )
        digest.update(name.encode())
        digest.update(weight_bytes(weight))
    for word in further:
        digest.update(word.encode())
    return digest.hexdigest()


def weight_bytes(weight: Tensor) -> bytes:
    """The bytes of a weight of any shape and dtype; one of no dimension is a number."""
    return weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
