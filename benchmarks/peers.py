"""The same features by other libraries: traker and dattri on their CPU projectors, side by side, at equal k.

Run: .venv/bin/python benchmarks/peers.py, after `pip install --no-deps traker dattri`. Writes
benchmarks/results/peers.json. The digits bank's model, its first training images with 10 draws each, one
thread, float32, the same x_t, t and noise for all. Each library is called as its documentation says, with
fused attention switched off, for which torch.func has no rule. `dattri` inverts its kernel in the same call,
which cannot be left out; its probability of a correct label, which has no meaning here (and whose group norms
have no rule under vmap without gradients), is given as a constant."""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from dattri.algorithm.trak import TRAKAttributor
from dattri.task import AttributionTask
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import BasicProjector, ProjectionType

from environment import environment
from headwater.bank import open_bank
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.gradients.inputs import drawn
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Dense, Sparse, TwoSided
from headwater.models import loading

N, K, WIDTH, BATCH, REPEATS = 64, 10, 2048, 16, 3


def main() -> None:
    torch.set_num_threads(1)
    bank, machine = open_bank("digits"), environment() | {"threads": 1}
    model, images = loading.load(bank.folder / "model"), bank.train.take(range(N))
    draw = drawn(model, images, slice(None), simple, Draws(K)).draw
    spec = GradientSpec("simple", Draws(K))
    data = TensorDataset(draw.x_t, draw.t, draw.noise)
    works: dict[str, Callable[[], Any]] = {
        f"headwater {name}": lambda projector=projector: list(projected(model, images, spec, projector))
        for name, projector in {
            "gaussian": Dense(WIDTH),
            "sparse": Sparse(WIDTH),
            "two-sided": TwoSided(WIDTH),
        }.items()
    }
    works |= {
        "traker": lambda: by_traker(model.module, data),
        "dattri": lambda: by_dattri(model.module, data),
    }
    seconds = {name: [] for name in works}
    for _ in range(REPEATS + 1):
        for name, work in works.items():  # in turn, so that a slow minute slows every library
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {"library": name, "seconds": round(statistics.median(times[1:]), 3)}
        for name, times in seconds.items()
    ]
    for row in rows:
        row["images_per_second"] = round(N / row["seconds"], 1)
        print(row)
    versions = {name: version(name) for name in ("traker", "dattri")}
    result = {
        "images": N,
        "timesteps": K,
        "k": WIDTH,
        "batch": BATCH,
        "versions": versions,
        "environment": machine,
        "rows": rows,
    }
    (Path(__file__).parent / "results" / "peers.json").write_text(json.dumps(result, indent=1))


class Loss(AbstractModelOutput):
    """traker's form of a task: the mean training loss of one picture's draws."""

    def __init__(self) -> None:
        pass

    @staticmethod
    def get_output(model, weights, buffers, x_t, t, noise):
        return (functional_call(model, (weights, buffers), (x_t, t)).sample - noise).square().mean()

    def get_out_to_loss_grad(self, model, weights, buffers, batch):
        return torch.ones(len(batch[0]), 1)


def by_traker(module: torch.nn.Module, data: TensorDataset) -> None:
    p = sum(parameter.numel() for parameter in module.parameters())
    projector = BasicProjector(p, WIDTH, 0, ProjectionType.normal, "cpu", dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder, sdpa_kernel(SDPBackend.MATH):
        trak = TRAKer(
            module, Loss(), N, folder, device="cpu", projector=projector, proj_dim=WIDTH,
            use_half_precision=False,
            logging_level=logging.ERROR,
        )  # fmt: skip
        trak.load_checkpoint(module.state_dict(), model_id=0)
        for batch in DataLoader(data, BATCH):
            trak.featurize(batch=batch, num_samples=len(batch[0]))


def by_dattri(module: torch.nn.Module, data: TensorDataset) -> None:
    def loss(parameters, one):
        x_t, t, noise = one
        return (functional_call(module, parameters, (x_t, t)).sample - noise).square().mean()

    task = AttributionTask(loss, module, module.state_dict())
    settings = {"proj_dim": WIDTH, "proj_type": "normal", "device": "cpu", "proj_max_batch_size": 32}
    with sdpa_kernel(SDPBackend.MATH):
        TRAKAttributor(
            task, lambda parameters, one: one[0].new_zeros(()), settings, regularization=1.0
        ).cache(DataLoader(data, BATCH))


if __name__ == "__main__":
    main()
