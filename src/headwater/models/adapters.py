"""Fine-tuning a model that there is: all of its weights, or adapters beside them."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from headwater.diffusion.denoiser import Denoiser, Family
from headwater.diffusion.encoding import encoded, posteriors
from headwater.diffusion.schedule import Schedule
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.models import loading, lora
from headwater.models.folders import fingerprint
from headwater.models.training_data import Material, latents


@dataclass(frozen=True, eq=False)
class Tuning:
    """`base` as it is, to be trained further on images whose latents and embedded prompts the store keeps.

    With a `rank` its weights stay as they are and adapters of that rank are trained (LoRA). `name` is what the base was opened by:
    a folder of its adapters tells it.
    """

    base: Denoiser
    store: FeatureStore
    rank: int | None = None
    name: str | None = None

    @property
    def dropouts(self) -> str:
        """All, or with adapters those of attention alone, as ArtBench's were trained (D-TRAK's code)."""
        return "*" if self.rank is None else "*attn*"

    @property
    def schedule(self) -> Schedule:
        return self.base.schedule

    @property
    def family(self) -> Family:
        return self.base.family

    def fresh(self, seed: int) -> nn.Module:
        """A network of its own with the base's weights, or the base's with new adapters: its frozen weights are not copied."""
        if self.rank is None:
            return deepcopy(self.base.module).requires_grad_(True)
        module = lora.beside(self.base.module)
        lora.add(module, self.rank, seed)
        return module

    def finished(self, module: nn.Module) -> Denoiser:
        """The base with this network in its place."""
        further = [each.fingerprint for each in (self.base.latent, self.base.text) if each is not None]
        return replace(self.base, module=module, fingerprint=fingerprint(module, self.schedule, *further))

    def check(self, examples: Examples) -> None:
        """Refuse what the base cannot be shown, and a base without an auto-encoder."""
        if self.base.latent is None:
            raise DataError("The model has no auto-encoder; expected one over latents. Train a model of pixels from the start.")
        self.base.check(examples)

    def settings(self, examples: Examples) -> dict[str, Any]:
        """The base's weights, the rank, and what the base is told of the images."""
        return {"base": self.base.fingerprint, "rank": self.rank, "prompts": examples.prompts}

    def material(self, examples: Examples, device: str, *, flips: bool) -> Material:
        """Latents of the images, and of their mirror images if these are trained on; and what conditions them."""
        mirrored = posteriors(self.base, examples, self.store, mirrored=True) if flips else None
        text = encoded(self.base, examples, self.store).text
        labels = None if self.base.classes is None else examples.labels
        return latents(posteriors(self.base, examples, self.store), mirrored, device, labels, text)

    def save(self, model: Denoiser, folder: Path) -> None:
        """The model's adapters in diffusers' format, and what they are of."""
        kind: Any = model.family
        if self.name is not None:
            lora.tell(folder, lora.Base(self.name, model.pictures[1:]))
        lora.save(model.module, folder, kind.part)


def adapters(
    base: str | Path, rank: int, size: tuple[int, int] | None, store: FeatureStore, device: str = "cpu", dtype: str = "float32"
) -> Tuning:
    """Adapters of the model of that name or folder, for pictures of this size (None: the model's own); `dtype`: that of its frozen
    weights."""
    if dtype == "float16":
        raise OptionError("dtype is float16, in which small gradients are lost on their way back; expected bfloat16 or float32.")
    name = loading.named(base)
    return Tuning(_opened(name, size, device, dtype), store, rank, name)


@lru_cache(maxsize=1)  # a base is large, and a process of a bank's trains one model after another
def _opened(name: str, size: tuple[int, int] | None, device: str, dtype: str) -> Denoiser:
    return loading.load(name, device, size=size, dtype=dtype)
