"""Fine-tuning an existing model: all of its weights, or adapters beside them."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from headwater.diffusion.denoiser import Denoiser, Family
from headwater.diffusion.encoding import encoded, notes_on_prompts, posteriors
from headwater.diffusion.schedule import Schedule
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.models import loading, lora
from headwater.models.folders import fingerprint
from headwater.models.training_data import Material, latents


@dataclass(frozen=True, eq=False)
class Tuning:
    """`base`, to be trained further on images whose latents and embedded prompts are in the store.

    With a `rank` its weights are frozen and adapters of that rank are trained (LoRA). `name` is the folder or
    name by which the base was opened; a folder of its adapters records it.
    """

    base: Denoiser
    store: FeatureStore
    rank: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"rank is {self.rank}; expected 1 or more.")

    @property
    def dropouts(self) -> str:
        """All layers, or with adapters only attention, as for ArtBench in D-TRAK's code."""
        return "*" if self.rank is None else "*attn*"

    @property
    def schedule(self) -> Schedule:
        return self.base.schedule

    @property
    def family(self) -> Family:
        return self.base.family

    def fresh(self, seed: int) -> nn.Module:
        """A copy of the base's network, or with a rank new adapters beside its shared, frozen weights."""
        if self.rank is None:
            return deepcopy(self.base.module).requires_grad_(True)
        module = lora.beside(self.base.module)
        lora.add(module, self.rank, seed)
        return module

    def finished(self, module: nn.Module) -> Denoiser:
        """The base with `module` as its network."""
        further = [
            encoder.fingerprint for encoder in (self.base.latent, self.base.text) if encoder is not None
        ]
        mark = fingerprint(module, self.schedule, *further)
        return replace(self.base, module=module, fingerprint=mark, checkpoints=(), earlier=None)

    def check(self, examples: Examples) -> None:
        """Raise a DataError for images that do not fit the base, or a base without an auto-encoder."""
        if self.base.latent is None:
            raise DataError(
                "The model has no auto-encoder; expected a latent model. A model of pixels can only be "
                "trained from scratch."
            )
        self.base.check(examples)

    def notes(self, examples: Examples) -> list[str]:
        """Notes on captions that the base's text encoder does not see to their end."""
        return notes_on_prompts(self.base.text, examples.prompts, "images")

    def settings(self, examples: Examples) -> dict[str, Any]:
        """The base's fingerprint, the rank, and the prompts."""
        return {"base": self.base.fingerprint, "rank": self.rank, "prompts": examples.prompts}

    def material(self, examples: Examples, device: str, *, flips: bool) -> Material:
        """Latents of the images, with `flips` also of their mirror images; and their labels and text."""
        mirrored = posteriors(self.base, examples, self.store, mirrored=True) if flips else None
        text = encoded(self.base, examples, self.store).text
        labels = None if self.base.classes is None else examples.labels
        return latents(posteriors(self.base, examples, self.store), mirrored, device, labels, text)

    def save(self, model: Denoiser, folder: Path) -> None:
        """Write the adapters in diffusers' format, and a record of the base."""
        kind: Any = model.family
        if self.name is not None:
            lora.write_base(folder, lora.Base(self.name, model.pictures[1:]))
        lora.save_adapters(model.module, folder, kind.part)


def lora_tuning(
    base: str | Path,
    rank: int,
    size: tuple[int, int] | None,
    store: FeatureStore,
    device: str = "cpu",
    dtype: str = "float32",
) -> Tuning:
    """The tuning of adapters for pictures of `size` (None: the model's); `dtype` of the frozen weights."""
    if dtype == "float16":
        raise OptionError(
            "dtype is float16, in which small gradients underflow; expected bfloat16 or float32."
        )
    name = loading.absolute_name(base)
    return Tuning(_opened(name, size, device, dtype), store, rank, name)


@lru_cache(maxsize=1)  # a base is large, and a worker of a bank trains many models
def _opened(name: str, size: tuple[int, int] | None, device: str, dtype: str) -> Denoiser:
    return loading.load(name, device, size=size, dtype=dtype)
