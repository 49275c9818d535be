"""The demo: digits → a small diffusion model → 16 generated digits → D-TRAK → report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.attribution.experiment import Experiment, run
from headwater.bank import open_bank
from headwater.data import open_examples
from headwater.disk.npz import write_examples
from headwater.disk.store import FeatureStore
from headwater.models import loading
from headwater.models.create import network, train_model
from headwater.models.generate import pictures
from headwater.models.train import DIGITS
from headwater.pages.page import report

COUNT = 16
# best on the digits bank's validation queries (docs/digits-bank.md)
FIELDS = {
    "measurement": "avg",
    "timesteps": 100,
    "damping": 0.001,
}


def demo(out: Path, store: FeatureStore, *, say: Callable[[str], None], bar: Callable[[str], Any]) -> Path:
    """Run every step, or those that are still to do; returns the report's path."""
    digits = open_examples("digits")
    say(f"1/4  Training a small diffusion model on {len(digits):,} handwritten digits")
    with bar("training") as tick:
        train_model(network("digits", digits), digits, DIGITS, out / "model", tick=tick)
    model = loading.load(out / "model")
    say(f"2/4  Generating {COUNT} new digits")
    with bar("sampling") as tick:
        queries = pictures(model, COUNT, tick=tick)
    write_examples(out / "generated.npz", queries)
    say("3/4  Tracing them back to the training digits with D-TRAK, and checking it against retrained models")
    sources = {"train": "digits", "query": str(out / "generated.npz"), "models": [out / "model"]}
    experiment = Experiment("d-trak", FIELDS, digits, queries, [model], open_bank("digits"), sources)
    with bar("features") as tick:
        run(experiment, out / "run", replace(store, progress=tick), force=True)
    say("4/4  Writing the report")
    return report([out / "run"])
