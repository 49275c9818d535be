"""Training several models of one seed side by side on one card, a step of all of them one replay of a CUDA
graph.

The numbers are those of `headwater.models.train`: the same initial weights, order of images, timesteps and
noise, by the same names. What differs is who waits for whom. The noise of all steps is made beforehand, for
models of a bank share it; rates, averaging weights and rows stand in tables on the card and a counter there
says which line is next. So a step needs nothing from the processor. Without flips and dropout, and with a
batch that divides the number of images."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater import seeds
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.models.train import Recipe, _batches, rate
from headwater.models.unet import Network

THREADS = 16  # that draw noise


@dataclass(frozen=True)
class How:
    """Models at once, and how a step is made: autocast to bfloat16, channels last, compiled, as a CUDA graph,
    TF32."""

    slots: int = 1
    bf16: bool = True
    last: bool = False
    compiled: bool = False
    graph: bool = True
    tf32: bool = True

    @property
    def name(self) -> str:
        words = [
            "bf16" if self.bf16 else "tf32" if self.tf32 else "float32",
            "channels-last" if self.last else "",
            "compiled" if self.compiled else "",
            "graph" if self.graph else "eager",
            f"{self.slots} at once" if self.slots > 1 else "",
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True, eq=False)
class Tables:
    """What models of one seed share, a row a step: timesteps and noise."""

    t: Tensor
    noise: Tensor

    @classmethod
    def of(
        cls, network: Network, shape: tuple[int, int, int], seed: int, steps: int, batch: int, device: str
    ) -> "Tables":
        """Those of so many steps; the draws of `headwater.models.train._noise`."""
        t = torch.empty(steps, batch, dtype=torch.int64)
        noise = torch.empty(steps, batch, *shape, device=device)

        def draw(step: int) -> np.ndarray:
            random = seeds.generator(seed, "training", step)
            t[step] = torch.as_tensor(random.integers(0, network.schedule.T, size=batch))
            return random.standard_normal((batch, *shape), dtype=np.float32)

        with ThreadPoolExecutor(THREADS) as pool:
            for step, drawn in enumerate(pool.map(draw, range(steps))):
                noise[step] = torch.as_tensor(drawn)
        return cls(t.to(device), noise)


@dataclass(eq=False)
class Slot:
    """One of the models being trained: its weights, their average, its optimizer, and the rows of images of
    every step."""

    module: nn.Module
    rows: Tensor
    forward: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    average: list[Tensor]
    loss: Tensor
    stream: Any = None
    parameters: list[nn.Parameter] = field(default_factory=list)


class Trainer:
    """Trains groups of at most `how.slots` models on subsets of the images, one group after the other."""

    def __init__(
        self,
        network: Network,
        examples: Examples,
        recipe: Recipe,
        how: How,
        device: str,
        steps: int,
        seed: int = 0,
        tables: Tables | None = None,
    ) -> None:
        if recipe.flips or recipe.dropout:
            raise OptionError(
                f"flips is {recipe.flips} and dropout {recipe.dropout}; the kit trains without either."
            )
        self.network, self.examples, self.recipe, self.how, self.device, self.seed = (
            network,
            examples,
            recipe,
            how,
            device,
            seed,
        )
        self.cuda = device.startswith("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = how.tf32
        torch.backends.cudnn.benchmark = True  # shapes never change
        self.images = torch.as_tensor(examples.pixels(), device=device)
        self.tables = tables or Tables.of(network, examples.shape, seed, steps, recipe.batch, device)
        like = self.images.new_empty(0)
        self.signal, self.sigma = (
            torch.as_tensor(values, dtype=like.dtype, device=device)[:, None, None, None]
            for values in (network.schedule.signal, network.schedule.sigma)
        )
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = torch.zeros(steps, device=device)
        self.averaging = torch.zeros(steps, device=device)
        self.fresh = [p.detach().clone() for p in network.fresh(seed).to(device).parameters()]
        self.slots = [self._slot(steps) for _ in range(how.slots)]
        self.graph: Any = None

    def _slot(self, steps: int) -> Slot:
        module = self.network.fresh(self.seed).to(self.device).train()
        if self.how.last:
            module = module.to(memory_format=torch.channels_last)
        weights = list(module.parameters())
        recipe, start = self.recipe, torch.zeros((), device=self.device)
        optimizer = torch.optim.AdamW(
            weights,
            start,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
            capturable=self.cuda,
        )
        forward = torch.compile(module) if self.how.compiled else module
        rows = torch.zeros(steps, recipe.batch, dtype=torch.int64, device=self.device)
        average = [p.detach().clone() for p in weights]
        stream = torch.cuda.Stream() if self.cuda else None
        return Slot(
            module, rows, forward, optimizer, average, torch.zeros(1, device=self.device), stream, weights
        )

    def _step(self, slot: Slot) -> None:
        """One step of one model, from tables alone."""
        at = self.at
        t, noise = (table.index_select(0, at)[0] for table in (self.tables.t, self.tables.noise))
        x = self.images.index_select(0, slot.rows.index_select(0, at)[0])
        x_t = self.signal.index_select(0, t) * x + self.sigma.index_select(0, t) * noise
        if self.how.last:
            x_t = x_t.contiguous(memory_format=torch.channels_last)
        kind = "cuda" if self.cuda else "cpu"
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False) if self.how.bf16 else nullcontext():
            output = slot.forward(x_t, t).sample
        loss = nn.functional.mse_loss(output.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(slot.parameters, self.recipe.clip)
        slot.optimizer.param_groups[0]["lr"].copy_(self.rates.index_select(0, at)[0])
        slot.optimizer.step()
        weight = self.averaging.index_select(0, at)[0]
        with torch.no_grad():
            torch._foreach_mul_(slot.average, 1 - weight)
            torch._foreach_add_(slot.average, torch._foreach_mul(slot.parameters, weight))
            slot.loss.copy_(loss.detach().view(1))

    def _all(self) -> None:
        """One step of every model, side by side."""
        if not self.cuda:
            for slot in self.slots:
                slot.optimizer.zero_grad(set_to_none=True)
                self._step(slot)
        else:
            current = torch.cuda.current_stream()
            for slot in self.slots:
                slot.stream.wait_stream(current)
                with torch.cuda.stream(slot.stream):
                    slot.optimizer.zero_grad(set_to_none=True)
                    self._step(slot)
            for slot in self.slots:
                current.wait_stream(slot.stream)
        self.at.add_(1)

    def _ready(self) -> Callable[[], None]:
        """What makes a step: a captured graph, or the kernels launched one by one."""
        if not (self.how.graph and self.cuda):
            return self._all
        if self.graph is None:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._all()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            for slot in self.slots:
                slot.optimizer.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=side):
                self._all()
        return self.graph.replay

    def _begin(self, subsets: Sequence[np.ndarray], total: int) -> None:
        """Initial weights, empty moments, rates and rows for so many steps."""
        recipe = self.recipe
        self.at.zero_()
        rates = [
            recipe.learning_rate * rate(step, total, recipe.warmup, recipe.decay) for step in range(total)
        ]
        weights = [1 - recipe.averaging(step) if recipe.ema else 1.0 for step in range(total)]
        self.rates[:total].copy_(torch.tensor(rates))
        self.averaging[:total].copy_(torch.tensor(weights))
        for slot, keep in zip(self.slots, subsets, strict=False):
            batches = [rows for _, rows in _batches(keep, recipe.batch, self.seed, 0, total)]
            short = {len(rows) for rows in batches} - {recipe.batch}
            if short:
                raise OptionError(
                    f"batch is {recipe.batch} for {keep.sum()} images; expected a batch that divides them."
                )
            slot.rows[:total].copy_(torch.stack(batches))
        with torch.no_grad():
            for slot in self.slots:
                for p, average, fresh in zip(slot.parameters, slot.average, self.fresh, strict=True):
                    p.copy_(fresh)
                    average.copy_(fresh)
                for state in slot.optimizer.state.values():
                    for value in state.values():
                        value.zero_()

    def train(
        self, subsets: Sequence[np.ndarray], total: int, watch: Callable[[int], None] = lambda step: None
    ) -> list[nn.Module]:
        """The models of these subsets after `total` steps, with averaged weights, in eval mode; one may be
        read before the next."""
        step = self._ready()
        self._begin(subsets, total)
        for number in range(total):
            step()
            watch(number + 1)
        losses = [float(slot.loss) for slot in self.slots[: len(subsets)]]
        if not np.isfinite(losses).all():
            raise OptionError(
                f"The training losses are {losses} after {total} steps; expected finite ones: a smaller "
                "rate, or float32."
            )
        return [self.finished(slot) for slot in self.slots[: len(subsets)]]

    def finished(self, slot: Slot) -> nn.Module:
        """A network of its own with the slot's averaged weights."""
        module = self.network.fresh(self.seed).to(self.device).eval()
        with torch.no_grad():
            for p, average in zip(module.parameters(), slot.average, strict=True):
                p.copy_(average)
        return module

    def timed(self, steps: int, warmup: int = 3) -> float:
        """Milliseconds a step and model, everything included."""
        every_image = np.ones(len(self.examples), bool)
        step = self._ready()
        self._begin([every_image] * self.how.slots, min(len(self.rates), steps + warmup))
        for _ in range(warmup):
            step()
        if not self.cuda:
            import time

            start = time.perf_counter()
            for _ in range(steps):
                step()
            return 1000 * (time.perf_counter() - start) / steps / self.how.slots
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / steps / self.how.slots
