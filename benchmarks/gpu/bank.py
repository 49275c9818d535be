"""A bank of models retrained on halves of CIFAR-2, as many as the time allows, in the package's own format.

Recipe, subsets, files, queries and outcomes are the package's (`headwater.retraining`), and so is each
model's stream of noise. The training loop is the kit's (`stepping`): it trains several models at once and
leaves the processor out of it. Whole models only: a group that would not be done in time is not begun, and
what is not trained stays NaN. Another call goes on from DIR/bank."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import unpacked
from report import Report, Stage, machine, peak_gib
from stepping import How, Tables, Trainer
from torch import nn

import networks
from headwater.bank import read_info
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement, simple
from headwater.disk.files import written
from headwater.disk.npz import read_examples, write_examples
from headwater.disk.outcomes import recover_outcomes
from headwater.examples import Examples
from headwater.gradients.inputs import Drawn, drawn
from headwater.models import loading, unet
from headwater.models.train import Recipe
from headwater.retraining import ledger
from headwater.retraining.build import _begin
from headwater.retraining.jobs import jobs_of, outcome_shape
from headwater.retraining.outcomes import binned
from headwater.retraining.queries import queries_of
from headwater.retraining.recipe import OUTCOMES, BankRecipe, DataSource, from_fields

MARGIN = 1.1  # of the longest group so far: what must be left for another to begin
TOGETHER = 1000  # draws that are measured at once
TINY = {"network": "tiny", "steps": "4", "slots": "2", "batch": "5", "models": "8"}
REAL = {
    "network": "short-64",
    "steps": "1600",
    "slots": "2",
    "batch": "125",
    "models": "64",
    "compiled": "yes",
}
OVERHEAD = 40.0  # seconds of a build that are no training: noise, files, queries, their outcomes
MEASURING = 2.0  # seconds that a model's outcomes may take


def run(stage: Stage) -> Report:
    report = Report(stage, "bank")
    building = Building(stage, report)
    report.item("model of all data", building.full)
    if not report.failed:
        report.item("queries", building.generated)
    while not report.failed and building.another_fits():
        report.item(f"group {len(building.done):02d} {stage.began:.0f}", building.group)
    if not report.failed:
        report.items.pop("bank", None)
        report.item("bank", building.summary)
    return report


def recipe_of(stage: Stage) -> BankRecipe:
    """The bank's recipe, from what the stage was told (`--set network=… steps=… batch=…`). `steps` are those
    of a half."""
    options = (TINY if stage.tiny else REAL) | stage.options
    steps, count = int(options["steps"]), 40 if stage.tiny else None
    training = Recipe(
        steps=2 * steps,
        batch=int(options["batch"]),
        learning_rate=float(options.get("rate", "5e-4")),
        dropout=0.0,
        flips=False,
        ema=float(options.get("ema", "0.995")),
        checkpoints=2,
    )
    return BankRecipe(
        data=DataSource(name="cifar2", count=count),
        held_out=DataSource(name="cifar2:val", count=6 if stage.tiny else 100),
        model=networks.configuration(options["network"]),
        training=training,
        subset_steps=steps,
        scheme="stratified",
        subsets=int(options["models"]),
        seeds=1,
        generated=4 if stage.tiny else 100,
        sample_steps=5 if stage.tiny else 50,
        outcome_draws=replace(OUTCOMES, timesteps=5 if stage.tiny else 100, noises=1),
    )


class Building:
    """A bank as it is built."""

    def __init__(self, stage: Stage, report: Report) -> None:
        self.stage, self.report, self.folder = stage, report, stage.out / "bank"
        options = (TINY if stage.tiny else REAL) | stage.options
        self.how = How(
            slots=int(options["slots"]),
            bf16=stage.cuda and options.get("bf16", "yes") == "yes",
            last=options.get("last", "no") == "yes",
            compiled=options.get("compiled", "no") == "yes",
        )
        assert stage.data is not None
        self.training, self.held_out = (unpacked(stage.data / f"{side}.npz") for side in ("train", "val"))
        if stage.tiny:
            self.training, self.held_out = self.training.take(range(40)), self.held_out.take(range(6))
        self.recipe = self._recipe()
        self.network = unet.Network(self.recipe.model)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kept = _begin(self.folder, self.recipe, self.network, self.training, self.held_out, print)
        self._note()
        self.longest, self.done = 0.0, list[tuple[int, int]]()
        self.trainer: Trainer | None = None
        self.tables: Tables | None = None
        self.measuring: Measuring | None = None

    def _recipe(self) -> BankRecipe:
        """That of the bank that is there; else what was told, with as many steps as `--set halves=…
        within=SECONDS` leave."""
        if (self.folder / "bank.json").exists():
            return from_fields(read_info(self.folder)["recipe"])
        recipe, options = recipe_of(self.stage), self.stage.options
        if "within" not in options:
            return recipe
        ms = self._fastest(unet.Network(recipe.model), recipe.training)
        seconds = (
            float(options["within"])
            - 60 * self.stage.minutes
            + self.stage.seconds_left()
            - OVERHEAD * (not self.stage.tiny)
        )
        most = (seconds / (int(options["halves"]) + 2) - MEASURING * (not self.stage.tiny)) / ms * 1000
        unit = 2 if self.stage.tiny else 50
        steps = int(min(float(options.get("most", "3000")), most) // unit * unit)
        print(
            f"bank    a step takes {ms:.2f} ms a model, {seconds:.0f} s are for training: "
            f"{steps} steps a half",
            flush=True,
        )
        return replace(recipe, training=replace(recipe.training, steps=2 * steps), subset_steps=steps)

    def _fastest(self, network: unet.Network, recipe: Recipe) -> float:
        """Milliseconds a step and model, of as many at once as is fastest; without compilation where that
        fails."""
        times: dict[int, float] = {}
        for slots in [int(word) for word in self.stage.options.get("try", str(self.how.slots)).split("+")]:
            try:
                how = replace(self.how, slots=slots)
                times[slots] = Trainer(network, self.training, recipe, how, self.stage.device, 48).timed(30)
            except Exception as error:
                print(
                    f"bank    {slots} at once failed: {type(error).__name__} {str(error)[:300]}", flush=True
                )
                if not times and self.how.compiled:
                    self.how = replace(self.how, compiled=False)
                    times[slots] = Trainer(
                        network, self.training, recipe, self.how, self.stage.device, 48
                    ).timed(30)
            print(
                f"bank    {slots} at once: {times.get(slots)} ms a step and model, "
                f"{self.stage.seconds_left():.0f} s left",
                flush=True,
            )
        self.report.items["models at once"] = {
            "ms_a_step_and_model": {str(slots): round(ms, 3) for slots, ms in times.items()}
        }
        best = min(times, key=lambda slots: times[slots] * (1 + 0.01 * slots))
        self.how = replace(self.how, slots=best)
        return times[best]

    def _note(self) -> None:
        """How the models are made, beside the recipe in bank.json: what the recipe has no word for."""
        path = self.folder / "bank.json"
        info = json.loads(path.read_text())
        info.setdefault(
            "made_by",
            {"kit": "benchmarks/gpu", "how": asdict(self.how), "card": machine(self.stage).get("gpu")},
        )
        with written(path, "w") as file:
            json.dump(info, file, indent=1)

    @property
    def total(self) -> int:
        """Steps of the model of all data; of a half they are half as many."""
        return self.recipe.training.total(len(self.training))

    def of(self, slots: int) -> Trainer:
        """A trainer of so many models at once; the last one is kept."""
        if self.trainer is None or self.trainer.how.slots != slots:
            self.trainer = None
            steps = self.total if slots == 1 else self.total // 2
            how, tables = replace(self.how, slots=slots), self.tables
            recipe, device = self.recipe.training, self.stage.device
            self.trainer = Trainer(
                self.network, self.training, recipe, how, device, max(steps, 8), tables=tables
            )
            self.tables = self.trainer.tables
        return self.trainer

    def full(self) -> dict[str, Any]:
        """The model of all data, in float16 from here on: what is committed is what is measured."""
        if loading.has_model(self.folder / "model"):
            return {"steps": 0}
        start, trainer = time.perf_counter(), self.of(1)
        set_up = time.perf_counter() - start

        def watch(step: int) -> None:
            if step == self.total // 2:
                self._save(trainer.finished(trainer.slots[0]), self.folder / "checkpoints" / f"step-{step}")

        (module,) = trainer.train([np.ones(len(self.training), bool)], self.total, watch)
        self._save(module, self.folder / "checkpoints" / f"step-{self.total}")
        self._save(module, self.folder / "model")
        spent = time.perf_counter() - start
        size = sum(p.numel() for p in module.parameters())
        loss = float(trainer.slots[0].loss)
        self.trainer = None
        return {
            "steps": self.total,
            "s": round(spent, 1),
            "set_up_s": round(set_up, 1),
            "parameters": size,
            "last_loss": loss,
        }

    def _save(self, module: nn.Module, folder: Path) -> None:
        unet.save_pipeline(unet.of_module(module.half(), self.network.schedule), folder)

    @property
    def model(self) -> Denoiser:
        return loading.load(self.folder / "model", self.stage.device)

    def generated(self) -> dict[str, Any]:
        """The queries, and the outcomes of the model that made half of them."""
        if not (self.folder / "queries.npz").exists():
            write_examples(
                self.folder / "queries.npz", queries_of(self.recipe, self.model, self.training, self.held_out)
            )
        queries = read_examples(self.folder / "queries.npz")
        start = time.perf_counter()
        self.measuring = Measuring(self.model, queries, self.recipe.outcome_draws, self.recipe.measurements)
        self.found = recover_outcomes(self.folder, outcome_shape(self.recipe, len(queries)), print)
        ledger.collect(self.folder, self.found, print)
        drawn_s = time.perf_counter() - start
        if not ledger.is_done(self.found, (-1, 0)):
            self._enter((-1, 0), self.model)
        self.done = [job for job in jobs_of(self.recipe) if job[0] >= 0 and ledger.is_done(self.found, job)]
        measured_s = time.perf_counter() - start - drawn_s
        return {
            "queries": len(queries),
            "there": len(self.done),
            "drawn_s": round(drawn_s, 1),
            "measured_s": round(measured_s, 1),
        }

    def _enter(self, job: tuple[int, int], model: Denoiser) -> None:
        assert self.measuring is not None
        ledger.save_job(self.folder, job, self.measuring.outcomes(model))
        ledger.collect(self.folder, self.found, print)

    def waiting(self) -> list[tuple[int, int]]:
        """Halves without outcomes."""
        return [job for job in jobs_of(self.recipe) if job[0] >= 0 and not ledger.is_done(self.found, job)]

    def another_fits(self) -> bool:
        """Whether there is a half to train, and time for a group of them."""
        if self.measuring is None:  # a stage that goes on has the items of the one before
            self.generated()
        return bool(self.waiting()) and self.stage.seconds_left() > MARGIN * self.longest

    def group(self) -> dict[str, Any]:
        """Train and measure the next halves, as many as go side by side."""
        start, jobs = time.perf_counter(), self.waiting()[: self.how.slots]
        trainer = self.of(self.how.slots)
        modules = trainer.train([self.kept[subset] for subset, _ in jobs], self.total // 2)
        trained = time.perf_counter()
        for job, module in zip(jobs, modules, strict=True):
            self._enter(job, unet.of_module(module, self.network.schedule))
            self.done.append(job)
        spent = time.perf_counter() - start
        self.longest = max(self.longest, spent)
        losses = [round(float(slot.loss), 4) for slot in trainer.slots[: len(jobs)]]
        return {
            "halves": [subset for subset, _ in jobs],
            "s_a_model": round(spent / len(jobs), 2),
            "measuring_s": round(spent - (trained - start), 2),
            "losses": losses,
            "finished": len(self.done),
            "peak_gib": peak_gib(self.stage),
        }

    def summary(self) -> dict[str, Any]:
        """What the bank holds, and how much halves differ where their chance is the same."""
        values = self.found["simple"][:, 0]
        finished = np.isfinite(values).all(1)
        spread = (
            float(values[finished].std(0).mean() / values[finished].mean()) if finished.sum() > 1 else None
        )
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        return {
            "halves": int(finished.sum()),
            "of": len(values),
            "mean_outcome": round(float(values[finished].mean()), 5) if finished.any() else None,
            "mean_outcome_of_the_full_model": round(float(self.found["full"].mean()), 5),
            "spread_over_halves": round(spread, 5) if spread is not None else None,
        }


class Measuring:
    """Outcomes of one model after the other on draws that are made once: what `headwater.retraining.outcomes`
    gives."""

    def __init__(self, model: Denoiser, queries: Examples, draws: Draws, names: Sequence[str]) -> None:
        self.names = dict.fromkeys(("simple", *names))
        height = max(1, TOGETHER // draws.count)
        rows = (slice(low, low + height) for low in range(0, len(queries), height))
        self.parts: list[Drawn] = [drawn(model, queries, part, simple, draws) for part in rows]
        self.times = np.concatenate([part.draw.t.cpu().numpy() for part in self.parts])

    def outcomes(self, model: Denoiser) -> dict[str, np.ndarray]:
        columns: dict[str, list[torch.Tensor]] = {name: [] for name in self.names}
        with torch.no_grad():
            for draw, _ in self.parts:
                output = model.predict(draw.x_t.flatten(0, 1), draw.t.reshape(-1)).view_as(draw.x_t)
                for name in self.names:
                    columns[name].append(measurement(name)(output, draw, model.schedule))
        values = {name: torch.cat(blocks).float().cpu().numpy() for name, blocks in columns.items()}
        means = {name: of.mean(1, dtype=np.float64).astype(np.float32) for name, of in values.items()}
        return means | {
            "per-timestep": binned(values["simple"], self.times, model.schedule.T).astype(np.float16)
        }
