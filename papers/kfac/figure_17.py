"""Figure 17: LDS (%) for the probability of the path that a sampler went

Pictures that the bank's model makes by DDPM, one step for each timestep, and m = −log p(path) of the path
each came by, as models retrained on halves of the data have it. K-FAC and EK-FAC: m of the query, λ = 1e-8,
nothing chosen, or with * the damping chosen by cross-fitting; TRAK*: m in φ. Rows with (m. loss)
differentiate the loss in place of m. 100 timesteps evenly spaced where the loss is differentiated, one noise
each; k = 4096.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from headwater.attribution.experiment import Experiment
from headwater.attribution.sweep import settings
from headwater.bank import Bank
from headwater.cli.progress import progress_bar
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.sample import conditioned, sample
from headwater.evaluate.lds import against
from headwater.examples import Examples, to_uint8
from headwater.gradients.forward import values
from headwater.models import loading
from headwater.models.cache import trained
from headwater.retraining.jobs import trainable, training_of
from headwater.retraining.recipe import from_fields
from papers._shared import pages
from papers._shared.bench import Result, figures, measured
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import REFERENCES, Line, influence, kernel
from papers._shared.session import Session

PAPER = (
    "The loss in its place predicts the path's probability better than the path itself does (CIFAR-2), and "
    "on larger data even retrained models hardly agree about it."
)
HERE = {
    "digits-mini": (
        "It holds: EK-FAC with the loss in its place has 13.1 [8.7, 17.1], with the path's probability 9.6 "
        "[4.5, 14.1]; two retrainings agree by 9.7. TRAK has 0.2 and 5.2."
    ),
}

PICTURES, SEED = 50, 17
RELATIVE = [a * 10.0**b for b in range(-6, 1) for a in (1, 3)]


@dataclass(frozen=True, eq=False)
class OnPaths(Bank):
    """A bank whose queries are pictures on their paths, with its retrained models' outcomes on the paths."""

    measured: np.ndarray = field(default_factory=lambda: np.empty(0))

    def outcomes(self, measurement: str = "trajectory") -> np.ndarray:
        assert measurement == "trajectory"
        return self.measured

    def done(self) -> np.ndarray:
        return np.isfinite(self.measured).all(2)


def on_paths(session: Session, model: Denoiser) -> OnPaths:
    """Pictures made by the bank's model, measured by all of its retrained models: those in the cache, else
    trained again.
    """
    bank, recipe = session.bank, from_fields(session.bank.info["recipe"])
    count = session.pictures or PICTURES
    labels = None if model.classes is None else np.arange(count) % model.classes
    condition = {} if labels is None else {"class_labels": torch.as_tensor(labels)}
    samples = sample(
        model,
        range(count),
        SEED,
        sampler="ddpm",
        steps=model.schedule.T,
        predict=conditioned(model, condition),
        keep_path=True,
    )
    assert samples.path is not None
    queries = Examples(
        to_uint8(samples.pictures.cpu().numpy()),
        ids=tuple(f"sampled-{i:03d}" for i in range(count)),
        labels=labels,
        split=("gen",) * count,
        trajectory=samples.path.cpu().numpy(),
        trajectory_timesteps=samples.timesteps,
    )
    outcomes = np.full((*bank.outcomes().shape[:2], count), np.nan)
    network = trainable(recipe, bank.train.shape[1:], session.store)
    jobs = [(subset, seed) for seed in bank.seeds() for subset in bank.rows()]
    with progress_bar("Retrained models") as tick:
        for number, job in enumerate(jobs, 1):
            retrained = trained(training_of(network, recipe, bank.subsets, job), bank.train, session.models)
            blocks = values(retrained, queries, ["trajectory"], Draws(1))
            outcomes[job] = np.concatenate([block.of["trajectory"].sum(1) for block in blocks])
            tick(number, len(jobs))
    return OnPaths(bank.folder, bank.info, bank.train, queries, bank.subsets, measured=outcomes)


def page(session: Session, exhibit: Exhibit) -> None:
    """A table of its own: the bank's files have no such outcomes."""
    model = loading.load(session.bank.folder / "model")
    bank, timesteps, rows = on_paths(session, model), session.counts(100)[0], []
    result_of = partial(_result, bank=bank, model=model, session=replace(session, bank=bank))
    base = result_of(_lines(timesteps)[0])
    for line in [*_lines(timesteps), *session.references("trajectory")]:
        result = result_of(line)
        truth = {"subsets": len(bank.rows()), "seeds": len(bank.seeds())}
        for row in figures(line, result, None if line.method in REFERENCES else base):
            minus = row["minus"] and {"row": _lines(timesteps)[0].row, **row["minus"]}
            rows.append({**line.place, **truth, **row, "minus": minus})
            print(exhibit.stem, line.row, f"{100 * row['lds']:.1f}", file=sys.stderr)
    parts = [pages.table(rows), *pages.differences(rows), f"{exhibit.origin}."]
    exhibit.save_page(session.folder, [pages.ground(bank, rows), *parts])


def _lines(timesteps: int) -> list[Line]:
    """The first is what the others are compared with."""
    path = {"measurement": "trajectory"}
    rows = {
        "`trak`*": kernel("d-trak", timesteps, **path),
        "`k-fac`": influence("k-fac", timesteps, **path),
        "`ek-fac`": influence("ek-fac", timesteps, **path),
        "`ek-fac`*": influence("ek-fac", timesteps, {"damping": RELATIVE}, **path),
        "`k-fac` (m. loss)": influence("k-fac", timesteps),
        "`ek-fac` (m. loss)": influence("ek-fac", timesteps),
        "`ek-fac`* (m. loss)": influence("ek-fac", timesteps, {"damping": RELATIVE}),
        "`trak`* (m. loss)": kernel("d-trak", timesteps, measurement="simple"),
        "`d-trak`*": kernel("d-trak", timesteps),
    }
    return [Line(row=name, against="trajectory", **settings) for name, settings in rows.items()]


def _result(line: Line, *, bank: OnPaths, model: Denoiser, session: Session) -> Result:
    if line.method in REFERENCES:
        return measured(line, session)
    experiment = Experiment(line.method, dict(line.fields), bank.train, bank.queries, [model], bank)
    scores = settings(experiment, line.swept, session.store)
    return Result(
        bank, {setting: against(bank, values, (), "trajectory") for setting, values in scores.items()}
    )


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_17"), doc=__doc__)
