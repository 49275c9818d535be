"""Figure 17: LDS (%) for the probability of the path that a sampler went

Pictures that the bank's model makes by DDPM, one step for each timestep, and m = −log p(path) of the path each came by, as models
retrained on halves of the data have it. K-FAC and EK-FAC: m of the query, λ = 1e-8, nothing chosen, or with * the damping chosen
by cross-fitting; TRAK*: m in φ. Rows with (m. loss) differentiate the loss in place of m. 100 timesteps evenly spaced where the
loss is differentiated, one noise each; k = 4096.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

import pages
from engine import REFERENCES, Found, Given, Line, figures, influence, kernel, main, measured
from headwater.attribution.experiment import Experiment
from headwater.attribution.sweep import settings
from headwater.bank import Bank
from headwater.cli.progress import bar
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

PAPER = (
    "The loss in its place predicts the path's probability better than the path itself does (CIFAR-2), and on larger data even "
    "retrained models hardly agree about it."
)
HERE = {
    "digits-mini": (
        "It holds: EK-FAC with the loss in its place has 13.1 [8.7, 17.1], with the path's probability 9.6 [4.5, 14.1]; two "
        "retrainings agree by 9.7. TRAK has 0.2 and 5.2."
    ),
}

PICTURES, SEED = 50, 17
RELATIVE = [a * 10.0**b for b in range(-6, 1) for a in (1, 3)]


@dataclass(frozen=True, eq=False)
class OnPaths(Bank):
    """A bank with pictures on their paths as its queries, and what its retrained models make of the paths."""

    measured: np.ndarray = field(default_factory=lambda: np.empty(0))

    def outcomes(self, measurement: str = "trajectory") -> np.ndarray:
        assert measurement == "trajectory"
        return self.measured

    def done(self) -> np.ndarray:
        return np.isfinite(self.measured).all(2)


def on_paths(given: Given, model: Denoiser) -> OnPaths:
    """Pictures made by the bank's model, and all of its retrained models' opinions, trained again where they are not kept."""
    bank, recipe = given.bank, from_fields(given.bank.info["recipe"])
    labels = None if model.classes is None else np.arange(PICTURES) % model.classes
    shown = {} if labels is None else {"class_labels": torch.as_tensor(labels)}
    made = sample(
        model, range(PICTURES), SEED, sampler="ddpm", steps=model.schedule.T, predict=conditioned(model, shown), keep_path=True
    )
    assert made.path is not None
    queries = Examples(
        to_uint8(made.pictures.cpu().numpy()),
        ids=tuple(f"sampled-{i:03d}" for i in range(PICTURES)),
        labels=labels,
        split=("gen",) * PICTURES,
        trajectory=made.path.cpu().numpy(),
        trajectory_timesteps=made.timesteps,
    )
    found = np.full((*bank.outcomes().shape[:2], PICTURES), np.nan)
    network = trainable(recipe, bank.train.shape[1:], given.store)
    jobs = [(subset, seed) for seed in bank.seeds() for subset in bank.rows()]
    with bar("Retrained models") as tick:
        for done, job in enumerate(jobs, 1):
            retrained = trained(training_of(network, recipe, bank.subsets, job), bank.train, given.models)
            parts = [each.of["trajectory"].sum(1) for each in values(retrained, queries, ["trajectory"], Draws(1))]
            found[job] = np.concatenate(parts)
            tick(done, len(jobs))
    return OnPaths(bank.folder, bank.info, bank.train, queries, bank.subsets, measured=found)


def page(given: Given) -> None:
    """A table of its own: the bank's files have no such outcomes."""
    model = loading.load(given.bank.folder / "model")
    bank, timesteps, rows = on_paths(given, model), given.counts(100)[0], []
    of = partial(_found, bank=bank, model=model, given=replace(given, bank=bank))
    base = of(_lines(timesteps)[0])
    for line in [*_lines(timesteps), *given.references("trajectory")]:
        found = of(line)
        truth = {"subsets": len(bank.rows()), "seeds": len(bank.seeds())}
        for row in figures(line, found, None if line.method in REFERENCES else base):
            minus = row["minus"] and {"row": _lines(timesteps)[0].row, **row["minus"]}
            rows.append({**line.place, **truth, **row, "minus": minus})
            print("kfac_figure_17", line.row, f"{100 * row['lds']:.1f}", file=sys.stderr)
    title, caption = pages.title_and_caption(sys.modules[__name__])
    shown = [pages.table(rows), *pages.differences(rows), "Made by `recipes/kfac_figure_17.py`."]
    pages.save(given.folder / "kfac_figure_17.md", [f"# {title}", caption, pages.ground(bank, rows), *shown])


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
    return [Line(row=name, against="trajectory", **how) for name, how in rows.items()]


def _found(line: Line, *, bank: OnPaths, model: Denoiser, given: Given) -> Found:
    if line.method in REFERENCES:
        return measured(line, given)
    run = Experiment(line.method, dict(line.fields), bank.train, bank.queries, [model], bank)
    scores = settings(run, line.swept, given.store)
    return Found(bank, {setting: against(bank, each, (), "trajectory") for setting, each in scores.items()})


if __name__ == "__main__":
    main("kfac_figure_17", doc=__doc__)
