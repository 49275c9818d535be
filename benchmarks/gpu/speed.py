"""What a GPU makes of it: seconds of passes, features, influence functions and training steps, and where they
go.

Random weights and random pictures: no figure here depends on what a model has learned. What is extrapolated
says so."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from report import Report, Stage, peak_gib, seconds, synchronised
from stepping import How, Trainer
from torch import nn

import networks
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.diffusion.sample import sample
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients import vmap
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Sparse, TwoSided, project
from headwater.methods import make
from headwater.models.train import Recipe, train

K = 10  # timesteps
CIFAR = 50_000
PRECISIONS = ("float32", "tf32", "bf16")
RECIPE = Recipe(batch=125, learning_rate=5e-4, dropout=0.0, flips=False, ema=0.995)


def run(stage: Stage) -> Report:
    report = Report(stage, "speed")
    only = stage.options.get("only", "").split("+") if "only" in stage.options else None
    for group, name, measure, needs in items(stage):
        if only is None or group in only:
            report.item(name, measure, 0.0 if stage.tiny else needs)
    return report


def items(stage: Stage) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]], float]]:
    """Group, name, measurement and about how many seconds it takes, the most wanted first."""
    if stage.tiny:
        yield from rehearsed(stage)
        return
    paper, middle, smaller = "paper", "wide-64", ("wide-48", "short-64")
    for precision in PRECISIONS:
        yield "passes", f"passes, {paper}, {precision}", partial(passes, stage, paper, precision), 5
    for how in (How(graph=False), How(), How(last=True)):
        yield "steps", f"steps, {paper}, {how.name}", partial(steps, stage, paper, how), 10
    for how in (How(graph=False), How(), How(last=True), How(slots=3), How(slots=3, last=True)):
        yield "steps", f"steps, {middle}, {how.name}", partial(steps, stage, middle, how), 10
    for name in smaller:
        for how in (How(), How(slots=4)):
            yield "steps", f"steps, {name}, {how.name}", partial(steps, stage, name, how), 10
    for precision in PRECISIONS:
        for kind in ("sparse", "two-sided"):
            name = f"features, {paper}, {kind}, k=4096, {precision}"
            yield "features", name, partial(rows, stage, paper, kind, 4096, precision), 10
    yield (
        "profile",
        f"profile of features, {paper}, sparse, tf32",
        partial(profiled, stage, paper, "sparse"),
        15,
    )
    yield (
        "profile",
        f"profile of features, {paper}, two-sided, tf32",
        partial(profiled, stage, paper, "two-sided"),
        15,
    )
    for how in (How(compiled=True), How(slots=4, compiled=True)):
        yield "compiled", f"steps, {middle}, {how.name}", partial(steps, stage, middle, how), 120
    yield "parts", f"weight gradients an example, one convolution of {paper}", partial(convolution, stage), 5
    yield "parts", "a sparse projection of one gradient", partial(projection, stage), 10
    yield "parts", "noise drawn on the processor", partial(noise, stage), 5
    yield "parts", f"sampling, {paper}, DDIM-50", partial(sampling, stage, paper), 10
    yield "influence", f"ek-fac, {middle}", partial(influence, stage, middle), 30
    yield "vmap", f"features, {paper}, torch.func, k=4096, tf32", partial(by_vmap, stage, paper), 15
    for kind in ("sparse", "two-sided"):
        yield (
            "features",
            f"features, {paper}, {kind}, k=32768, tf32",
            partial(rows, stage, paper, kind, 32768, "tf32"),
            15,
        )
    yield (
        "package",
        f"steps of the package, {middle}, float32 and TF32",
        partial(package_steps, stage, middle),
        15,
    )


def rehearsed(stage: Stage) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]], float]]:
    """Each kind of item once, of the smallest network, without compilation."""
    yield "passes", "passes", partial(passes, stage, "tiny", "bf16"), 0
    yield "steps", "steps", partial(steps, stage, "tiny", How(slots=2)), 0
    for kind in ("sparse", "two-sided"):
        yield "features", f"features, {kind}", partial(rows, stage, "tiny", kind, 64, "tf32"), 0
    yield "profile", "profile", partial(profiled, stage, "tiny", "two-sided"), 0
    yield "parts", "convolution", partial(convolution, stage), 0
    yield "parts", "projection", partial(projection, stage), 0
    yield "parts", "noise", partial(noise, stage), 0
    yield "parts", "sampling", partial(sampling, stage, "tiny"), 0
    yield "influence", "influence", partial(influence, stage, "tiny"), 0
    yield "vmap", "torch.func", partial(by_vmap, stage, "tiny"), 0
    yield "package", "steps of the package", partial(package_steps, stage, "tiny"), 0


@contextmanager
def precision_of(name: str) -> Iterator[None]:
    """float32 as it is, or with TF32 products; bf16 models bring their own dtype."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, cudnn.benchmark = (matmul.allow_tf32, cudnn.allow_tf32), False
    matmul.allow_tf32 = cudnn.allow_tf32 = name != "float32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def model_of(stage: Stage, name: str, precision: str) -> Denoiser:
    """A network on the card, with room for a card's batches."""
    model = networks.denoiser(name, stage.device, 2**26 if stage.tiny else 12 * 2**30)
    if precision == "bf16":
        nn.Module.to(model.module, torch.bfloat16)
    return model


def passes(stage: Stage, name: str, precision: str, batch: int = 320) -> dict[str, Any]:
    """An ordinary forward and backward pass with weight gradients, as a training step has them."""
    batch = 4 if stage.tiny else batch
    model = model_of(stage, name, precision)
    x = torch.linspace(-1, 1, batch * 3072, device=stage.device).view(batch, 3, 32, 32).to(model.dtype)
    t = torch.arange(batch, device=stage.device) * (1000 // batch)

    def work() -> None:
        model.module.zero_grad()
        model.module(x, t).sample.square().mean().backward()

    with precision_of(precision):
        spent = seconds(stage, work)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.module(x[:1], t[:1]).sample.square().mean().backward()
    flops = counter.get_total_flops() * batch
    return {
        "batch": batch,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "ms": round(1000 * spent, 2),
        "passes_a_second": round(batch / spent, 1),
        "tflops": round(flops / spent / 1e12, 2),
        "peak_gib": peak_gib(stage),
    }


def steps(stage: Stage, name: str, how: How) -> dict[str, Any]:
    """Training steps of batch 125, of one model or of several at once."""
    recipe = replace(RECIPE, batch=5) if stage.tiny else RECIPE
    count = 3 if stage.tiny else 20
    examples = networks.pictures(2 * recipe.batch)
    start = time.perf_counter()
    trainer = Trainer(networks.network(name), examples, recipe, how, stage.device, count + 8)
    trainer.timed(2)
    first = time.perf_counter() - start
    ms = trainer.timed(count)
    return {
        "ms_a_step_and_model": round(ms, 3),
        "batch": recipe.batch,
        "steps_a_second": round(1000 / ms, 1),
        "set_up_s": round(first, 1),
        "peak_gib": peak_gib(stage),
    }


def package_steps(stage: Stage, name: str) -> dict[str, Any]:
    """The package's own loop, unchanged: what the kit's is to be compared with."""
    count, batch = (3, 5) if stage.tiny else (30, 125)
    examples, network = networks.pictures(2 * batch), networks.network(name)
    recipe = replace(RECIPE, steps=count, batch=batch, checkpoints=1)
    with precision_of("tf32"):
        train(network, examples, replace(recipe, steps=2), 0, device=stage.device)
        times: list[float] = []
        from headwater.models.train import Watch

        watch = Watch(step=lambda step, total: times.append(time.perf_counter()))
        train(network, examples, recipe, 0, device=stage.device, watch=watch)
        synchronised(stage)
    ms = 1000 * (times[-1] - times[0]) / (len(times) - 1)
    return {
        "ms_a_step": round(ms, 3),
        "batch": batch,
        "steps_a_second": round(1000 / ms, 1),
        "peak_gib": peak_gib(stage),
    }


def rows(stage: Stage, name: str, kind: str, k: int, precision: str) -> dict[str, Any]:
    """Feature rows of D-TRAK, from pictures to numbers on the card: blocks of 128 images, the first not
    counted."""
    model = model_of(stage, name, precision)
    of = Sparse(k) if kind == "sparse" else TwoSided(k)
    examples = networks.pictures(8 if stage.tiny else 384)
    height = 4 if stage.tiny else 128
    with precision_of(precision):
        times, start = [], time.perf_counter()
        blocks = (
            block
            for low in range(0, len(examples), height)
            for block in projected(
                model, examples.take(range(low, low + height)), GradientSpec("square", Draws(K)), of
            )
        )
        for _ in blocks:
            synchronised(stage)
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
            if sum(times[1:]) > 8:
                break
    later = times[1:]
    return {
        "images_a_second": round(height * len(later) / sum(later), 2),
        "first_block_s": round(times[0], 2),
        "blocks": len(later),
        "hours_for_50000_extrapolated": round(CIFAR * sum(later) / len(later) / height / 3600, 3),
        "peak_gib": peak_gib(stage),
    }


def by_vmap(stage: Stage, name: str) -> dict[str, Any]:
    """As the D-TRAK authors' code does it: torch.func, then a projection; the projection here is sparse,
    theirs dense."""
    model, batch, count = model_of(stage, name, "tf32"), 8, 8 if stage.tiny else 32
    examples = networks.pictures(count)
    of = Sparse(4096)
    with precision_of("tf32"):

        def work() -> None:
            for block in vmap.gradients(model, examples, measurement("square"), Draws(K), batch=batch):
                project(of, block)

        spent = seconds(stage, work, repeats=1)
    return {"images_a_second": round(count / spent, 2), "batch": batch, "peak_gib": peak_gib(stage)}


def convolution(stage: Stage) -> dict[str, Any]:
    """Weight gradients of every example of 32 with 10 draws each: one call an example, or unfolded and
    multiplied at once."""
    from headwater.gradients.layers import ConvLayer

    b, d, c = (2, 2, 8) if stage.tiny else (32, K, 256)
    results: dict[str, Any] = {"examples": b, "draws": d, "channels": c}
    for side in (16, 4) if stage.tiny else (32, 16, 8, 4):
        layer = ConvLayer("one", nn.Conv2d(c, c, 3, padding=1, bias=False).to(stage.device), {"weight": 0})
        a = torch.linspace(-1, 1, b * d * c * side**2, device=stage.device).view(b * d, c, side, side)
        g = a.flip(0).contiguous()

        def unfolded(layer: ConvLayer = layer, a: torch.Tensor = a, g: torch.Tensor = g) -> torch.Tensor:
            patches = layer.inputs(a)
            out = layer.outputs(g)
            return out.reshape(b, -1, c).mT @ patches.reshape(b, -1, patches.shape[-1])

        def called(layer: ConvLayer = layer, a: torch.Tensor = a, g: torch.Tensor = g) -> list[Any]:
            return list(layer.gradient(a, g, b))

        with precision_of("tf32"):
            for name, work in (("a_call_each", called), ("unfolded", unfolded)):
                results[f"{side}x{side}_{name}_ms"] = round(1000 * seconds(stage, work), 3)
    return results | {"peak_gib": peak_gib(stage)}


def projection(stage: Stage) -> dict[str, Any]:
    """A layer's gradients, 32 rows of 1.2 million, folded to 4,096: stretch by stretch, or at once."""
    width = 20_000 if stage.tiny else 2**20 + 2**17
    of, piece = Sparse(4096), torch.linspace(-1, 1, 32 * width, device=stage.device).view(32, width)
    out = piece.new_zeros(32, 4096)

    def stretches() -> None:
        signs = torch.as_tensor(of.signs(0, 0, width), device=piece.device)
        of._fold(out, piece * signs, 0, 0)

    results = {"ms_stretch_by_stretch": round(1000 * seconds(stage, stretches), 3)}
    results["ms_at_once"] = round(1000 * seconds(stage, lambda: of._fold_at_once(out, piece, 0, 0)), 3)
    return results | {"rows": 32, "width": width, "peak_gib": peak_gib(stage)}


def noise(stage: Stage) -> dict[str, Any]:
    """Draws a second that numpy makes on one thread, which a GPU has to wait for."""
    count = 4 if stage.tiny else 64
    model, examples = networks.denoiser("tiny"), networks.pictures(count)
    spent = seconds(stage, lambda: Draws(K).of(examples, slice(0, count), model.schedule, model.like))
    return {"draws_a_second": round(count * K / spent), "us_a_draw": round(1e6 * spent / count / K, 1)}


def sampling(stage: Stage, name: str) -> dict[str, Any]:
    count = 2 if stage.tiny else 100
    model = model_of(stage, name, "tf32")
    with precision_of("tf32"):
        spent = seconds(
            stage, lambda: sample(model, range(count), 0, steps=4 if stage.tiny else 50), repeats=1
        )
    return {"pictures_a_second": round(count / spent, 2), "pictures": count, "peak_gib": peak_gib(stage)}


def influence(stage: Stage, name: str) -> dict[str, Any]:
    """EK-FAC's fit and scores, store and all: 10 draws for each of two estimates, 10 for the gradients."""
    count, queries = (6, 2) if stage.tiny else (512, 64)
    model, examples = model_of(stage, name, "tf32"), networks.pictures(count)
    method = make("ek-fac", {"timesteps": K})
    with tempfile.TemporaryDirectory() as folder, precision_of("tf32"):
        store, start = FeatureStore(Path(folder)), time.perf_counter()
        index = method.fit(model, examples, store)
        synchronised(stage)
        fitted = time.perf_counter()
        networks.scored(method, index, examples.take(range(queries)), store)
        scored = time.perf_counter()
    return {
        "fit_s": round(fitted - start, 2),
        "score_s": round(scored - fitted, 2),
        "images": count,
        "queries": queries,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "peak_gib": peak_gib(stage),
    }


def profiled(stage: Stage, name: str, kind: str) -> dict[str, Any]:
    """Where the time of a block of features goes: the heaviest kernels, and how long the card had nothing to
    do."""
    from torch.profiler import ProfilerActivity, profile

    model = model_of(stage, name, "tf32")
    count = 4 if stage.tiny else 64
    of, pictures = (Sparse(4096) if kind == "sparse" else TwoSided(4096)), networks.pictures(3 * count)

    def block(number: int, examples: Examples = pictures) -> None:
        chosen = examples.take(range(number * count, (number + 1) * count))
        for _ in islice(projected(model, chosen, GradientSpec("simple", Draws(K)), of), 1):
            synchronised(stage)

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if stage.cuda else [])]
    with precision_of("tf32"):
        block(0)
        start = time.perf_counter()
        block(1)
        plain = time.perf_counter() - start
        with profile(activities=kinds) if stage.cuda or stage.tiny else nullcontext() as trace:
            block(2)
    events = trace.key_averages()
    on_card = [
        (e.key[:90], e.self_device_time_total / 1e3, e.count) for e in events if e.self_device_time_total > 0
    ]
    kernels = [row for row in on_card if not row[0].startswith(("aten::", "autograd::", "cuda"))]
    on_host = sorted(
        ((e.key[:60], e.self_cpu_time_total / 1e3, e.count) for e in events), key=lambda row: -row[1]
    )
    busy = sum(ms for _, ms, _ in kernels)
    heaviest = sorted(kernels, key=lambda row: -row[1])
    return {
        "images": count,
        "block_ms": round(1000 * plain, 1),
        "card_busy_ms": round(busy, 1),
        "card_idle_share": round(max(0.0, 1 - busy / (1000 * plain)), 3) if stage.cuda else None,
        "launches": sum(count for _, _, count in kernels),
        "kernels_ms": [[key, round(ms, 2), times] for key, ms, times in heaviest[:16]],
        "host_ms": [[key, round(ms, 2), times] for key, ms, times in on_host[:16]],
    }
