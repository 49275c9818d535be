"""What one call of the command line gives to every exhibit: the bank, the store, the machine."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headwater.attribution.experiment import Experiment
from headwater.attribution.open import Machine, Models, Sources, open_experiment
from headwater.bank import Bank
from headwater.disk.store import FeatureStore
from headwater.gradients import features
from papers._shared.keeping import RESULTS
from papers._shared.line import REFERENCES, Line

# the version of a row's figures: raised where they change and neither a field nor a feature does
NUMERICS = 1


@dataclass(frozen=True, kw_only=True)
class Session:
    """What every exhibit is given.

    `models`: the folder of models retrained on learning subsets. `timesteps`: numbers of timesteps;
    `functions`: names of measurements; `pictures`: how many are sampled (None: the exhibit's own).
    """

    bank: Bank
    store: FeatureStore
    models: Path
    machine: Machine
    results: Path = RESULTS
    timesteps: tuple[int, ...] | None = None
    functions: tuple[str, ...] | None = None
    pictures: int | None = None
    embedder: str | None = None

    @property
    def stamp(self) -> dict[str, Any]:
        """The state of the bank and the version of the numerics: others are measured again."""
        numerics = {"headwater": version("headwater"), "features": features.VERSION, "figures": NUMERICS}
        return {"bank": [*self.bank.state, self.bank.train.fingerprint], "numerics": numerics}

    @property
    def folder(self) -> Path:
        """The folder of the bank's results."""
        return self.results / self.bank.folder.name

    def counts(self, *usual: int) -> tuple[int, ...]:
        """Numbers of timesteps: those of --timesteps, else the exhibit's own."""
        return self.timesteps or usual

    def references(self, against: str = "simple", column: str = "") -> list[Line]:
        """Lines of every table: random scores and, with several seeds, how well one predicts the other."""
        names = list(REFERENCES)[: 2 if len(self.bank.seeds()) > 1 else 1]
        return [Line(row=REFERENCES[name], column=column, method=name, against=against) for name in names]

    def experiment(self, line: Line) -> Experiment:
        """The line's experiment: models loaded or trained, queries with paths if the method needs them."""
        folders = [] if line.ensemble else [self.bank.folder / line.model]
        models = Models(folders, line.ensemble, self.models, store=self.store)
        bank = str(self.bank.folder)
        return open_experiment(line.method, dict(line.fields), Sources(), models, bank, self.machine)
