"""Making what is attributed: a model folder from images, and pictures from a model."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import condition, decoded
from headwater.diffusion.sample import SAMPLERS, conditioned, sample
from headwater.diffusion.schedule import linear
from headwater.disk.files import written
from headwater.disk.store import unheard
from headwater.errors import DataError, NonFiniteError, OptionError, unknown
from headwater.examples import Examples, to_uint8
from headwater.models import folders, loading, unet
from headwater.models.train import Recipe, Trainable, Watch, train
from headwater.models.unet import Network

BATCH = 256  # pictures sampled together


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are made. `steps` None: 50 for ddim, all for ddpm; `guidance` g ≠ 1 leads away from the empty prompt's output;
    with `keep_path` every state x_t that the sampler went through is kept."""

    sampler: str = "ddim"
    steps: int | None = None
    guidance: float = 1.0
    keep_path: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)


def network(config: str, examples: Examples, *, prediction: str = "epsilon", conditional: bool = False) -> Network:
    """The named network in the size and channels of the images, conditional on their labels if asked."""
    if prediction not in folders.PREDICTIONS:
        raise unknown("prediction", prediction, folders.PREDICTIONS)
    channels, height, width = examples.shape
    changes: dict[str, object] = {"sample_size": (height, width), "in_channels": channels, "out_channels": channels}
    if conditional:
        if examples.labels is None:
            raise DataError(
                "A conditional model needs labels, and the images have none. Use a folder with one subfolder per class."
            )
        changes["num_class_embeds"] = int(examples.labels.max()) + 1
    arguments = unet.configuration(config, **changes)
    multiple = 2 ** (len(arguments["block_out_channels"]) - 1)
    if height % multiple or width % multiple:
        raise DataError(f"The images are {height}×{width}; the network '{config}' takes sides that are multiples of {multiple}.")
    return Network(arguments, linear(prediction=prediction))  # pyright: ignore[reportArgumentType]


def train_model(
    network: Trainable,
    examples: Examples,
    recipe: Recipe,
    out: Path,
    seed: int = 0,
    *,
    device: str = "cpu",
    tick: Callable[[int, int], None] = unheard,
) -> None:
    """Train the network, or adapters, on `examples` and write it to `out`, with checkpoints in `out/checkpoints/step-*`.

    An interrupted call goes on from its last checkpoint. What a finished one wrote is left as it is, if its settings were the same;
    others are refused.
    """
    network.check(examples)
    decided = network.settings(examples) | {"recipe": asdict(recipe), "seed": seed, "data": examples.fingerprint}
    if not _begun(out, decided):
        return
    with _watched(out, network.save, tick) as watch:
        network.save(train(network, examples, recipe, seed, device=device, watch=watch), out)


@contextmanager
def _watched(out: Path, save: Callable[[Denoiser, Path], None], tick: Callable[[int, int], None]) -> Iterator[Watch]:
    """Checkpoints saved in `out/checkpoints/step-*`, and a state there to go on from until the block is through."""
    state = out / "training-state.safetensors"
    yield Watch(state, tick, lambda step, model: save(model, out / "checkpoints" / f"step-{step}"))
    state.unlink(missing_ok=True)


def _begun(out: Path, settings: Mapping[str, object]) -> bool:
    """Whether the training with these settings is still to do in `out`, or to go on there; of another one it is refused."""
    told, there = json.loads(json.dumps(settings)), out / "training.json"
    if there.exists() and json.loads(there.read_text()) != told:
        raise OptionError(f"{out} holds a model of another training run. Name another folder with --out, or delete that one.")
    if loading.holds(out):
        return False
    with written(there, "w") as file:
        json.dump(told, file, indent=1)
    return True


def pictures(
    model: Denoiser,
    count: int,
    seed: int = 0,
    *,
    sampling: Sampling | None = None,
    label: int | None = None,
    prompts: Sequence[str] | None = None,
    tick: Callable[[int, int], None] = unheard,
) -> Examples:
    """`count` generated pictures as 8-bit queries, with their prompts and the latents they were decoded from.

    A conditional model takes class `label`, or all classes in turn; one that takes prompts the `prompts` in turn.
    """
    how = sampling or Sampling()
    steps = how.steps if how.steps is not None else (50 if how.sampler == "ddim" else model.schedule.T)
    labels, words = _labels(model, count, label), _words(model, count, prompts)
    starts = range(0, count, BATCH)
    images, latents, paths, times = [], [], [], np.zeros(0, np.int64)
    for start in starts:
        indices = range(start, min(start + BATCH, count))
        here = slice(start, indices.stop)
        given = condition(model, None if labels is None else labels[here], None if words is None else words[here])
        made = sample(
            model,
            indices,
            seed,
            sampler=how.sampler,
            steps=steps,
            predict=conditioned(model, given, how.guidance),
            keep_path=how.keep_path,
            on_step=lambda done, total, start=start: tick(start // BATCH * total + done, len(starts) * total),
        )
        if not torch.isfinite(made.pictures).all():
            raise NonFiniteError(
                f"Among pictures {start} to {indices.stop - 1} there is NaN or infinity, of weights in {str(model.dtype)[6:]}. "
                "Usual causes: half precision, or weights that have diverged. Use --dtype bfloat16 or float32."
            )
        images.append(to_uint8(decoded(model, made.pictures).float().cpu().numpy()))
        latents.append(made.pictures.float().cpu().numpy())
        paths.append(None if made.path is None else made.path.float().cpu().numpy())
        times = made.timesteps
    return Examples(
        np.concatenate(images),
        ids=tuple(f"generated-{i:03d}" for i in range(count)),
        labels=labels,
        prompts=words,
        split=("gen",) * count,
        latents=None if model.latent is None else np.concatenate(latents),
        trajectory=np.concatenate(paths) if how.keep_path else None,  # pyright: ignore[reportArgumentType, reportCallIssue]
        trajectory_timesteps=times if how.keep_path else None,
    )


def _words(model: Denoiser, count: int, prompts: Sequence[str] | None) -> tuple[str, ...] | None:
    if model.text is None:
        if prompts:
            raise OptionError(f"--prompt is '{prompts[0]}', but the model takes no prompts.")
        return None
    if not prompts:
        raise OptionError("The model makes pictures of prompts, and there is none. Give one or more with --prompt.")
    return tuple(prompts[i % len(prompts)] for i in range(count))


def _labels(model: Denoiser, count: int, label: int | None) -> np.ndarray | None:
    if model.classes is None:
        if label is not None:
            raise OptionError(f"--label is {label}, but the model is not class-conditional.")
        return None
    if label is None:
        return np.arange(count, dtype=np.int64) % model.classes
    if not 0 <= label < model.classes:
        raise OptionError(f"--label is {label}; the model has classes 0 … {model.classes - 1}.")
    return np.full(count, label, np.int64)
