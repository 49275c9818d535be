"""Trained models on disk, addressed by their settings: get or train, or resume a killed training."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import nn

from headwater.diffusion.denoiser import Denoiser
from headwater.disk.files import written
from headwater.errors import NonFiniteError, StorageError
from headwater.examples import Examples
from headwater.models.train import Recipe, Trainable, Watch, train


@dataclass(frozen=True)
class Training:
    """All that determines a trained model: equal trainings give equal weights. `keep`: a mask of images."""

    network: Trainable
    recipe: Recipe
    seed: int
    keep: Bool[np.ndarray, " n"] | None = None

    def name(self, examples: Examples) -> str:
        """A hash of the network, recipe, seed and kept images in order."""
        mask = np.ones(len(examples), bool) if self.keep is None else self.keep
        settings = self.network.settings(examples) | {
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "data": examples.fingerprint,
            "keep": np.packbits(mask).tobytes().hex(),
        }
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def trained(
    training: Training, examples: Examples, folder: Path | None = None, *, device: str = "cpu"
) -> Denoiser:
    """The trained model: read from `folder`, else trained and written there (None: not stored).

    A damaged file is replaced by training again.
    """
    if folder is None:
        return train(
            training.network, examples, training.recipe, training.seed, keep=training.keep, device=device
        )
    path = folder / f"{training.name(examples)}.safetensors"
    if (saved := _saved(path, training.network, device)) is not None:
        return saved
    state = path.with_suffix(".state")
    try:
        model = _trained(training, examples, state, device)
    except StorageError as error:
        if not isinstance(error.__cause__, SafetensorError):
            raise
        state.unlink()  # damaged: start again
        model = _trained(training, examples, state, device)
    with written(path) as file:
        # frozen weights are the base's
        weights = {name: value.contiguous().cpu() for name, value in model.parameters().items()}
        file.write(serialized(weights, metadata={"fingerprint": model.fingerprint}))
    state.unlink(missing_ok=True)
    return model


def _trained(training: Training, examples: Examples, state: Path, device: str) -> Denoiser:
    network, recipe, watch = training.network, training.recipe, Watch(state)
    return train(network, examples, recipe, training.seed, keep=training.keep, device=device, watch=watch)


def _saved(path: Path, network: Trainable, device: str) -> Denoiser | None:
    """The model in the file; None if there is none, or if its weights are not as written."""
    if not path.exists():
        return None
    module = network.fresh(0)
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("fingerprint")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        module.load_state_dict(weights, strict=False)
        nn.Module.to(module, device)
        model = network.finished(module)  # its fingerprint shows whether weights are missing
    except (SafetensorError, OSError, RuntimeError, NonFiniteError):
        return None
    return model if model.fingerprint == expected else None
