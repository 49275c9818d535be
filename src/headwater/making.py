"""Making what is attributed: a model folder from images, and pictures from a model."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core import Examples, to_uint8
from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.sample import SAMPLERS, conditioned, sample
from headwater.diffusion.schedule import linear
from headwater.disk import written
from headwater.errors import DataError, NonFiniteError, OptionError, unknown
from headwater.features import check_fits
from headwater.models import folders, loading, lora, unet
from headwater.models.train import Recipe, Watch, train
from headwater.models.tuning import Tuning, save_lora
from headwater.models.unet import Network
from headwater.store import FeatureStore

BATCH = 256  # pictures sampled together
DECODED = 16  # pictures decoded together


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
    network: Network,
    examples: Examples,
    recipe: Recipe,
    out: Path,
    seed: int = 0,
    *,
    device: str = "cpu",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Denoiser:
    """Train the network on `examples` and write it to `out`, with checkpoints in `out/checkpoints/step-*`.

    An interrupted call goes on from its last checkpoint. A finished one is loaded, if its settings were the same; else refused.
    """
    config = json.loads(json.dumps(dict(network.config)))
    settings = {"network": config, "prediction": network.schedule.prediction}
    if not _begun(out, settings | {"recipe": asdict(recipe), "seed": seed, "data": examples.fingerprint}):
        return loading.load(out, device)
    with _watched(out, unet.save, tick) as watch:
        model = train(network, examples, recipe, seed, device=device, watch=watch)
        unet.save(model, out)
    return model


class Adapters(NamedTuple):
    """LoRA of this rank for the pipeline `base`, by folder or hub name, whose frozen weights are of this dtype; latents and
    embedded prompts are kept in the store."""

    base: str | Path
    rank: int
    store: FeatureStore
    dtype: str = "float32"


def train_lora(
    what: Adapters,
    examples: Examples,
    recipe: Recipe,
    out: Path,
    seed: int = 0,
    *,
    device: str = "cpu",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Denoiser:
    """Train adapters of a pipeline and write them to `out`, with checkpoints in `out/checkpoints/step-*`.

    Interrupted and finished calls are as `train_model`'s.
    """
    if what.dtype == "float16":
        raise OptionError("dtype is float16, in which small gradients are lost on their way back; expected bfloat16 or float32.")
    model = loading.load(what.base, device, size=examples.shape[1:], dtype=what.dtype)
    check_fits(model, examples)
    settings = {"base": model.fingerprint, "rank": what.rank, "recipe": asdict(recipe), "seed": seed, "data": examples.fingerprint}
    if not _begun(out, settings | {"prompts": examples.prompts}):
        return loading.load(what.base, device, lora=out, size=examples.shape[1:], dtype=what.dtype)
    with _watched(out, save_lora, tick) as watch:
        tuned = train(Tuning(model, what.store, what.rank), examples, recipe, seed, device=device, watch=watch)
        save_lora(tuned, out)
    return tuned


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
    if (out / "model_index.json").exists() or lora.holds(out):
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
    tick: Callable[[int, int], None] = lambda done, total: None,
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
        made = sample(
            model,
            indices,
            seed,
            sampler=how.sampler,
            steps=steps,
            predict=conditioned(model, _condition(model, labels, words, slice(start, indices.stop)), how.guidance),
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


def decoded(model: Denoiser, made: Tensor) -> Float[Tensor, "b c h w"]:
    """The pictures that a model made, from latents if it makes those."""
    if model.latent is None:
        return made
    with torch.no_grad():
        return torch.cat([model.latent.decode(made[low : low + DECODED]) for low in range(0, len(made), DECODED)])


def _condition(model: Denoiser, labels: np.ndarray | None, words: tuple[str, ...] | None, rows: slice) -> Condition:
    found = {} if labels is None else {"class_labels": torch.as_tensor(labels[rows], device=model.device)}
    if model.text is not None and words is not None:
        with torch.no_grad():
            found |= model.text.embed(words[rows])
    return found


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
