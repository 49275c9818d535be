"""Training a DDPM by the D-TRAK paper's recipe: restartable, and comparable across subsets of the data.

Everything random is a pure function of (seed, step): initial weights, the order of each epoch, timesteps,
noise, flips, dropout. Within one seed, models trained on different subsets therefore start from equal weights
and draw the same (t, ε) stream; only their data differ.
"""

import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn

from headwater import seeds
from headwater.diffusion.denoiser import Condition, Denoiser, Family
from headwater.diffusion.schedule import Schedule
from headwater.disk.files import written
from headwater.errors import DataError, NonFiniteError, OptionError, StorageError, unknown
from headwater.examples import Examples
from headwater.linalg.transfer import sent
from headwater.models.training_data import Material

DECAYS = ("cosine", "none")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyperparameters of a training. Defaults: Zheng et al. (D-TRAK), section 4.2 and their code.

    `steps` counts optimizer steps; None means `epochs` passes over the data. `decay` of the learning rate
    after its warm-up: `cosine` to 0, or `none`. `ema` is the largest decay of averaged weights (None: no
    averaging); until then it is (1+step)/(10+step), or with `ema_power` 1 − (1+step)^−power (diffusers'
    EMAModel without and with its warm-up).
    """

    epochs: int = 200
    steps: int | None = None
    batch: int = 128
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    warmup: float = 0.1
    decay: str = "cosine"
    clip: float = 1.0
    dropout: float = 0.1
    flips: bool = True
    ema: float | None = None
    ema_power: float | None = None
    checkpoints: int = 4

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "checkpoints") + (("steps",) if self.steps is not None else ()):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        if self.decay not in DECAYS:
            raise unknown("decay", self.decay, DECAYS)
        finite, below_one = "a finite number of 0 or more", "0 up to, not including, 1"
        domains = {  # False for NaN
            "learning_rate": (0 <= self.learning_rate < math.inf, finite),
            "weight_decay": (0 <= self.weight_decay < math.inf, finite),
            "betas": (all(0 <= beta < 1 for beta in self.betas), below_one),
            "warmup": (0 <= self.warmup <= 1, "a share of the steps, from 0 to 1"),
            "clip": (self.clip > 0, "a number above 0"),
            "dropout": (0 <= self.dropout < 1, below_one),
            "ema": (self.ema is None or 0 <= self.ema < 1, below_one),
            "ema_power": (self.ema_power is None or 0 < self.ema_power < math.inf, "a finite number above 0"),
        }
        for name, (is_possible, expected) in domains.items():
            if not is_possible:
                raise OptionError(f"{name} is {getattr(self, name)}; expected {expected}.")

    def total(self, n: int) -> int:
        """Optimizer steps for n images."""
        return self.steps if self.steps is not None else self.epochs * math.ceil(n / self.batch)

    def averaging(self, step: int) -> float:
        """The decay of the averaged weights at `step`; 0 at step 0: they start from the weights after it."""
        rising = (
            min(step, 1) * (1 + step) / (10 + step)
            if self.ema_power is None
            else 1 - (1 + step) ** -self.ema_power
        )
        return min(self.ema or 0.0, rising)


LORA = Recipe(epochs=100, batch=64, learning_rate=3e-4, betas=(0.9, 0.999))  # ArtBench's (appendix A.1)
DIGITS = Recipe(steps=1000, batch=64, learning_rate=4e-3, dropout=0.0, flips=False)


@runtime_checkable
class Trainable(Protocol):
    """A network to train.

    `fresh` gives the network with the initial weights of a seed; parameters that require a gradient are
    trained. `finished` wraps a trained network in a Denoiser, which `save` writes to a folder that `load`
    opens. `dropouts` is the name pattern of the dropout layers. `check` raises a DataError for images that do
    not fit, `notes` are on what is not seen of those that do. `settings`, JSON-ready, determine the trained
    model together with the images, the recipe and the seed.
    """

    @property
    def schedule(self) -> Schedule: ...

    @property
    def family(self) -> Family: ...

    @property
    def dropouts(self) -> str: ...

    def fresh(self, seed: int) -> nn.Module: ...

    def finished(self, module: nn.Module) -> Denoiser: ...

    def check(self, examples: Examples) -> None: ...

    def notes(self, examples: Examples) -> list[str]: ...

    def settings(self, examples: Examples) -> dict[str, Any]: ...

    def material(self, examples: Examples, device: str, *, flips: bool) -> Material: ...

    def save(self, model: Denoiser, folder: Path) -> None: ...


@dataclass(frozen=True)
class Watch:
    """The callbacks of a training, for steps and checkpoints, and the file of its state.

    With `state`, weights and optimizer are written there at every checkpoint, to resume from.
    """

    state: Path | None = None
    step: Callable[[int, int], None] = lambda step, total: None
    checkpoint: Callable[[int, Denoiser], None] = lambda step, model: None


def train(
    network: Trainable,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    *,
    keep: Bool[np.ndarray, " n"] | None = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Denoiser:
    """The model trained on `examples` (or a boolean mask `keep` of them), started from `seed`."""
    watch = watch or Watch()
    keep = np.ones(len(examples), bool) if keep is None else keep
    if not keep.any():
        raise DataError("There is no image to train on; expected at least one.")
    material = network.material(examples, device, flips=recipe.flips)
    module = _module(network, recipe, seed, device)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    average = {name: p.detach().clone() for name, p in _trained(module)} if recipe.ema else {}
    first = _resume(watch.state, module, optimizer, average)
    total = recipe.total(int(keep.sum()))
    marks = {round(total * (i + 1) / recipe.checkpoints) for i in range(recipe.checkpoints)}
    with torch.random.fork_rng(
        devices=[device] if device.startswith("cuda") else []
    ):  # dropout draws from a global generator
        for step, rows in _batches(keep, recipe.batch, seed, first, total):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate(step, total, recipe.warmup, recipe.decay)
            loss = _step(network, module, optimizer, material, rows, recipe, (seed, step))
            for name, p in _trained(module) if recipe.ema else ():
                average[name].lerp_(p.detach(), 1 - recipe.averaging(step))
            watch.step(step + 1, total)
            if step + 1 in marks:
                if not torch.isfinite(loss):
                    raise NonFiniteError(
                        f"The training loss is {loss.item():g} at step {step + 1}. Use a smaller learning "
                        "rate, or float32."
                    )
                watch.checkpoint(step + 1, _finished(network, module, average))
                _keep(watch.state, module, optimizer, average, step + 1)
    return _finished(network, module, average)


def rate(step: int, total: int, warmup: float, decay: str = "cosine") -> float:
    """The learning rate's share of its peak: linear for a share `warmup` of the steps, then half a cosine."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return step / rising
    if decay == "none":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def _module(network: Trainable, recipe: Recipe, seed: int, device: str) -> nn.Module:
    """The fresh network in training mode, with the recipe's dropout."""
    module = network.fresh(seed)
    nn.Module.to(module, torch.device(device))
    module.train()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Dropout) and fnmatch.fnmatchcase(name, network.dropouts):
            layer.p = recipe.dropout
    return module


def _step(
    network: Trainable,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    material: Material,
    rows: Int64[Tensor, " b"],
    recipe: Recipe,
    name: tuple[int, int],
) -> Tensor:
    """Change the module by one batch, whose loss is returned. Nothing is read from a device here: it works on
    while the next steps are prepared."""
    seed, step = name
    x = material.shown(rows, seed, step, flips=recipe.flips)
    loss = _loss(network, module, x, material.condition(rows), recipe, name)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for _, p in _trained(module)], recipe.clip)
    optimizer.step()
    return loss


def _loss(
    network: Trainable,
    module: nn.Module,
    x: Tensor,
    condition: Condition,
    recipe: Recipe,
    name: tuple[int, int],
) -> Tensor:
    """Mean squared error of one batch; all its randomness is named by `name`, (seed, step)."""
    (seed, step), schedule = name, network.schedule
    t, noise = _noise(x, schedule.T, seed, step, recipe.batch)
    torch.random.manual_seed(seeds.key(seed, "dropout", step, bits=64) >> 1)
    x_t = schedule.noised(x, noise, t)
    dtype = next(module.parameters()).dtype
    output = network.family.prediction(module, dtype, x_t, schedule.time(t), condition)
    return nn.functional.mse_loss(output, schedule.target(x, noise, t))


def _batches(keep: np.ndarray, batch: int, seed: int, first: int, total: int) -> Iterator[tuple[int, Tensor]]:
    """(step, rows): an epoch in an order drawn for all images, restricted to the kept ones; the last batch
    short."""
    step, epoch = 0, 0
    while step < total:
        order = seeds.generator(seed, "order", epoch).permutation(len(keep))
        rows = order[keep[order]]
        for start in range(0, len(rows), batch):
            if first <= step < total:
                yield step, torch.as_tensor(rows[start : start + batch])
            step += 1
        epoch += 1


def _noise(x: Tensor, T: int, seed: int, step: int, batch: int) -> tuple[Tensor, Tensor]:
    """Timesteps and noise of one step, drawn for a full batch: slot b does not depend on the batch's size."""
    random = seeds.generator(seed, "training", step)
    t = random.integers(0, T, size=batch)[: len(x)]
    noise = random.standard_normal((batch, *x.shape[1:]), dtype=np.float32)[: len(x)]
    return sent(t, x.device), sent(noise, x.device)


def _finished(network: Trainable, module: nn.Module, average: Mapping[str, Tensor]) -> Denoiser:
    """A copy of the network in eval mode, without dropout, and with the averaged weights if any.

    Frozen weights are shared.
    """
    frozen = {id(p): p for p in module.parameters() if not p.requires_grad}
    copy = deepcopy(module, frozen)
    copy.load_state_dict(average, strict=False)
    copy.zero_grad()
    for layer in copy.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return network.finished(copy)


def _keep(
    path: Path | None,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    step: int,
) -> None:
    if path is None:
        return
    tensors = {f"weight/{name}": p.detach() for name, p in _trained(module)}
    tensors |= {f"average/{name}": p for name, p in average.items()}
    for (name, _), state in zip(_trained(module), optimizer.state.values(), strict=True):
        tensors |= {f"{part}/{name}": value for part, value in state.items()}
    tensors["step"] = torch.tensor(step)
    with written(path) as file:
        file.write(serialized({name: value.contiguous().cpu() for name, value in tensors.items()}))


def _resume(
    path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> int:
    """Restore weights and optimizer from `path` if it exists; returns the number of finished steps."""
    if path is None or not path.exists():
        return 0
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StorageError(
            f"The training state {path} is damaged. Delete it: training starts again."
        ) from error
    for name, p in _trained(module):
        p.data.copy_(tensors[f"weight/{name}"])
        optimizer.state[p] = {
            part: tensors[f"{part}/{name}"].to(p.device) for part in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[p]["step"] = tensors[f"step/{name}"].to(p.device)
        if name in average:
            average[name].copy_(tensors[f"average/{name}"])
    return int(tensors["step"])
