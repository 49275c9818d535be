"""A new model folder: the network for given images, and its training."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.schedule import linear
from headwater.disk.files import written
from headwater.disk.store import unheard
from headwater.errors import DataError, OptionError, Warn, to_warnings, unknown
from headwater.examples import Examples
from headwater.models import folders, loading, unet
from headwater.models.train import Recipe, Trainable, Watch, train
from headwater.models.unet import Network


def network(
    config: str, examples: Examples, *, prediction: str = "epsilon", conditional: bool = False
) -> Network:
    """The named network for the images' size and channels, and with `conditional` for their labels."""
    if prediction not in folders.PREDICTIONS:
        raise unknown("prediction", prediction, folders.PREDICTIONS)
    channels, height, width = examples.shape
    changes: dict[str, object] = {
        "sample_size": (height, width),
        "in_channels": channels,
        "out_channels": channels,
    }
    if conditional:
        if examples.labels is None:
            raise DataError(
                "A conditional model needs labels, and the images have none. Use a folder with one subfolder "
                "per class."
            )
        changes["num_class_embeds"] = int(examples.labels.max()) + 1
    arguments = unet.configuration(config, **changes)
    multiple = 2 ** (len(arguments["block_out_channels"]) - 1)
    if height % multiple or width % multiple:
        raise DataError(
            f"The images are {height}×{width}; the network '{config}' takes sides that are multiples of "
            f"{multiple}."
        )
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
    warn: Warn = to_warnings,
) -> None:
    """Train the network, or adapters, on `examples` and write it to `out`, with `out/checkpoints/step-*`.

    An interrupted call goes on from its last checkpoint. A finished model with equal settings is left
    unchanged; one with other settings is an OptionError.
    """
    network.check(examples)
    for note in network.notes(examples):
        warn(note)
    settings = network.settings(examples) | {
        "recipe": asdict(recipe),
        "seed": seed,
        "data": examples.fingerprint,
    }
    if not _unfinished(out, settings):
        return
    with _watched(out, network.save, tick) as watch:
        network.save(train(network, examples, recipe, seed, device=device, watch=watch), out)


@contextmanager
def _watched(
    out: Path, save: Callable[[Denoiser, Path], None], tick: Callable[[int, int], None]
) -> Iterator[Watch]:
    """A Watch that saves checkpoints in `out/checkpoints`, and a state in `out` until the block ends."""
    state = out / "training-state.safetensors"
    yield Watch(state, tick, lambda step, model: save(model, out / "checkpoints" / f"step-{step}"))
    state.unlink(missing_ok=True)


def _unfinished(out: Path, settings: Mapping[str, object]) -> bool:
    """Whether this training is unfinished in `out`; an OptionError for one with other settings."""
    record, path = json.loads(json.dumps(settings)), out / "training.json"
    if path.exists() and json.loads(path.read_text()) != record:
        raise OptionError(
            f"{out} holds a model of another training run. Name another folder, or delete this one.",
            hint="Use --out FOLDER.",
        )
    if loading.has_model(out):
        return False
    with written(path, "w") as file:
        json.dump(record, file, indent=1)
    return True
