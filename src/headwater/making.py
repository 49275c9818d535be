"""Making what is attributed: a model folder from images, and pictures from a model."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from headwater.core import Examples, to_uint8
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.sample import SAMPLERS, sample
from headwater.diffusion.schedule import linear
from headwater.disk import written
from headwater.errors import DataError, OptionError, unknown
from headwater.models import unet
from headwater.models.train import Recipe, Watch, train
from headwater.models.unet import Network

BATCH = 256  # pictures sampled together


def network(config: str, examples: Examples, *, prediction: str = "epsilon", conditional: bool = False) -> Network:
    """The named network in the size and channels of the images, conditional on their labels if asked."""
    if prediction not in unet.PREDICTIONS:
        raise unknown("prediction", prediction, unet.PREDICTIONS)
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
    settings = {"recipe": asdict(recipe), "network": config, "prediction": network.schedule.prediction, "seed": seed}
    settings = json.loads(json.dumps(settings | {"data": examples.fingerprint}))
    there = out / "training.json"
    if there.exists() and json.loads(there.read_text()) != settings:
        raise OptionError(f"{out} holds a model of another training run. Name another folder with --out, or delete that one.")
    if (out / "model_index.json").exists():
        return unet.load(out, device)
    with written(there, "w") as file:
        json.dump(settings, file, indent=1)
    state = out / "training-state.safetensors"
    watch = Watch(state, tick, lambda step, model: unet.save(model, out / "checkpoints" / f"step-{step}"))
    model = train(network, examples, recipe, seed, device=device, watch=watch)
    unet.save(model, out)
    state.unlink(missing_ok=True)
    return model


def pictures(
    model: Denoiser,
    count: int,
    seed: int = 0,
    *,
    sampler: str = "ddim",
    steps: int | None = None,
    label: int | None = None,
    keep_path: bool = False,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Examples:
    """`count` generated pictures as 8-bit queries; with `keep_path`, with every state x_t the sampler went through.

    A conditional model takes class `label`, or all classes in turn.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    steps = steps if steps is not None else (50 if sampler == "ddim" else model.schedule.T)
    labels = _labels(model, count, label)
    images, paths, times = [], [], np.zeros(0, np.int64)
    starts = range(0, count, BATCH)
    for start in starts:
        indices = range(start, min(start + BATCH, count))
        here = None if labels is None else torch.as_tensor(labels[start : indices.stop], device=model.device)
        made = sample(
            model,
            indices,
            seed,
            sampler=sampler,
            steps=steps,
            labels=here,
            keep_path=keep_path,
            on_step=lambda done, total, start=start: tick(start // BATCH * total + done, len(starts) * total),
        )
        images.append(to_uint8(made.pictures.float().cpu().numpy()))
        paths.append(None if made.path is None else made.path.float().cpu().numpy())
        times = made.timesteps
    return Examples(
        np.concatenate(images),
        ids=tuple(f"generated-{i:03d}" for i in range(count)),
        labels=labels,
        split=("gen",) * count,
        trajectory=np.concatenate(paths) if keep_path else None,  # pyright: ignore[reportArgumentType, reportCallIssue]
        trajectory_timesteps=times if keep_path else None,
    )


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
