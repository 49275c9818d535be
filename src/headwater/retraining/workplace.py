"""Where models are retrained: the crew, the device, the folder of trained models and the store."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from headwater.disk.store import FeatureStore, default_root
from headwater.models.device import is_available
from headwater.workers import Crew, Here, Pool


@dataclass(frozen=True)
class Workplace:
    """The crew, the device of each job, the folder for trained models (None: none are kept), and the store.

    The store holds latents and embedded prompts: the first job that needs them makes them, for all.
    """

    crew: Crew = field(default_factory=Here)
    device: str = "cpu"
    models: Path | None = None
    store: FeatureStore = field(default_factory=lambda: FeatureStore(default_root()))

    @property
    def local_device(self) -> str:
        """The device for work of this process: the jobs' device, where this machine has it."""
        return self.device if is_available(self.device) else "cpu"


def workplace(
    device: str = "cpu",
    crew: Crew | None = None,
    models: Path | None = None,
    store: FeatureStore | None = None,
) -> Workplace:
    """A workplace with the usual store and crew: a process for each core, or one for another device."""
    crew = crew or Pool(os.cpu_count() or 1 if device == "cpu" else 1)
    return Workplace(crew, device, models, store or FeatureStore(default_root()))
