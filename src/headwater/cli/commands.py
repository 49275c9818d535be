"""The command line: arguments to calls. Results go to stdout, everything else to stderr.

Heavy modules are imported inside the commands, so that `--help` is instant.
"""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.errors import OptionError, Stopped, UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Which training images did a diffusion model's picture come from?",
)
bank_app = typer.Typer(no_args_is_help=True, help="Ground truth: retrain on subsets of the training set and measure.")
app.add_typer(bank_app, name="bank")

ModelFolders = Annotated[
    list[str] | None,
    typer.Option("--model", help="Folder of diffusers, or a name on the hub (hf:owner/name); several: an ensemble."),
]
Lora = Annotated[str | None, typer.Option(help="LoRA weights of the model, as --model: they alone are then its parameters.")]
Train = Annotated[str | None, typer.Option(help="Training images: folder, .npz, hf:name[:split], digits, cifar10, cifar2.")]
Query = Annotated[str | None, typer.Option(help="Queries: the pictures to explain; as --train.")]
Method = Annotated[str, typer.Option(help="Attribution method (see `headwater methods`), or package.module:Class.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A field of the method: field=value. May be repeated.")]
BankFolder = Annotated[str | None, typer.Option("--bank", help="A bank of retrained models, or `digits`.")]
Seed = Annotated[int, typer.Option(help="Names all random draws.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")]
Dtype = Annotated[str, typer.Option(help="Of the network's weights: float32, bfloat16 or float16. Adapters stay in float32.")]
Store = Annotated[Path | None, typer.Option(help="Where features are kept [default: $HEADWATER_STORE or the user cache].")]
Kept = Annotated[str, typer.Option("--store-dtype", help="float32, or float16: half the space, at a small recorded error.")]
Memory = Annotated[float, typer.Option(min=0.01, help="GiB that one pass through the model may take: decides batch sizes.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Compute features in so many processes of one thread [default: in this one].")
]
Ray = Annotated[str | None, typer.Option(help="Address of a Ray cluster that does the jobs (`auto` finds a local one).")]
Gpus = Annotated[float, typer.Option(min=0, help="On a cluster: GPUs for each job, may be a fraction.")]
Ensemble = Annotated[
    int | None, typer.Option(min=1, help="Average over so many models, each retrained on one of the bank's further subsets.")
]
Resize = Annotated[int | None, typer.Option(help="Resize and centre-crop images to this size.")]
Caption = Annotated[
    str | None, typer.Option(help="Prompts for images that have none, such as 'a {group} painting'; also {label}, {id}.")
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (may stand anywhere).")] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the model, the pictures and the report go.")] = Path("headwater-demo"),
    store: Store = None,
) -> None:
    """Train a small model on digits, generate 16 pictures, attribute them, and write the report: under five minutes."""
    from headwater.cli.demo import demo as steps

    page = steps(out, _store(store), say=_say, bar=_bar)
    _say("The page shows, for each of 16 generated digits, which training digits the model drew on, and how far to trust that.")
    print(page.resolve())


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Training images: folder, .npz, hf:name[:split], or a built-in name.")],
    out: Annotated[Path, typer.Option(help="Model folder to write (diffusers format, with checkpoints).")],
    config: Annotated[str, typer.Option(help="Named network: digits, cifar, celeba, …-scale-shift.")] = "digits",
    model: Annotated[str | None, typer.Option(help="Pipeline, by folder or hub name, to train LoRA weights for.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train adapters of the attention of --model (ArtBench's recipe).")] = False,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters; their α is the same.")] = 128,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps [default: by --epochs].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data [default: 200, with --lora 100].")] = None,
    batch: Annotated[int | None, typer.Option(help="[default: 128, with --lora 64]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[default: 1e-4, with --lora 3e-4]")] = None,
    dropout: float = 0.1,
    flips: bool = True,
    ema: Annotated[float | None, typer.Option(help="Decay of averaged weights [default: off].")] = None,
    checkpoints: int = 4,
    prediction: Annotated[str, typer.Option(help="epsilon, v_prediction or sample.")] = "epsilon",
    conditional: Annotated[bool, typer.Option("--conditional", help="Condition on the labels.")] = False,
    resize: Resize = None,
    caption: Caption = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of the weights of --model, which adapters leave as they are: float32 or bfloat16.")
    ] = "float32",
    store: Store = None,
) -> None:
    """Train a DDPM, or with --lora adapters of a model, with the recipes of the D-TRAK paper.

    Run again, it goes on from its last checkpoint.
    """
    from headwater.attribution.experiment import device as checked
    from headwater.cli.arguments import Reading, read
    from headwater.models.adapters import adapters
    from headwater.models.making import network, train_model
    from headwater.models.train import LORA, Recipe

    if lora != (model is not None):
        raise OptionError("--lora and --model belong together: a pipeline, of which adapters are trained.")
    if dtype != "float32" and not lora:
        raise OptionError(
            f"--dtype is {dtype}; all weights are trained, in float32. It is for the frozen weights of --model --lora."
        )
    given = {"steps": steps, "epochs": epochs, "batch": batch, "learning_rate": learning_rate}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    changes |= {"dropout": dropout, "flips": flips, "ema": ema, "checkpoints": checkpoints}
    recipe, examples = replace(LORA if lora else Recipe(), **changes), read(data, Reading(resize, caption), "images")
    with _bar("training") as tick:
        if model is not None:
            what = adapters(model, rank, examples.shape[1:], _store(store), checked(device), dtype)
        else:
            what = network(config, examples, prediction=prediction, conditional=conditional)
        train_model(what, examples, recipe, out, seed, device=checked(device), tick=tick)
    print(out)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="Model folder, or a name on the hub.")],
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    lora: Lora = None,
    seed: Seed = 0,
    sampler: Annotated[str, typer.Option(help="ddim (η = 0) or ddpm.")] = "ddim",
    steps: Annotated[int | None, typer.Option(help="Sampling steps [default: 50 for ddim, all for ddpm].")] = None,
    label: Annotated[int | None, typer.Option(help="Class of a conditional model [default: all in turn].")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What to make a picture of; several: in turn.")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance, of models that take prompts; 1: none.")] = 1.0,
    trajectory: Annotated[bool, typer.Option("--trajectory", help="Keep the path x_t of every picture.")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Generate pictures, each from its own named noise, as 8-bit queries."""
    import numpy as np

    from headwater.attribution.experiment import device as checked
    from headwater.disk.npz import write_examples
    from headwater.models import loading
    from headwater.models.making import Sampling, pictures

    loaded = loading.load(model, checked(device), lora=lora, dtype=dtype)
    with _bar("sampling") as tick:
        how = Sampling(sampler=sampler, steps=steps, guidance=guidance, keep_path=trajectory)
        examples = pictures(loaded, count, seed, sampling=how, label=label, prompts=prompt, tick=tick)
    out = out if out.suffix == ".npz" else out.with_name(out.name + ".npz")
    write_examples(out, examples, seed=np.array(seed))
    print(out)


@app.command()
def attribute(
    method: Method,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    train: Train = None,
    query: Query = None,
    model: ModelFolders = None,
    lora: Lora = None,
    set_: Settings = None,
    bank: BankFolder = None,
    seed: Annotated[int | None, typer.Option(help="Names all random draws [default: 0].")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    store: Store = None,
    store_dtype: Kept = "float32",
    memory: Memory = 1.0,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    resize: Resize = None,
    caption: Caption = None,
    ensemble: Ensemble = None,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Draw which part of a picture came from where (nda).")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run with other settings.")] = False,
) -> None:
    """Score every training image for every query, and write the run folder with its report."""
    from headwater.attribution.experiment import run
    from headwater.cli.arguments import Machine, Models, Reading, crew, experiment, fields_of
    from headwater.pages.page import report as page

    fields, models = fields_of(method, set_ or [], seed), Models(model or [], ensemble, _models(None), lora, _store(store))
    what = experiment(method, fields, train, query, models, bank, Machine(device, memory, dtype), Reading(resize, caption))
    with _bar("features") as tick:
        kept = _store(store, tick, store_dtype, crew(workers, ray, gpus), memory)
        fresh = run(what, out, kept, force=force, maps=maps)
    if not fresh:
        _say(f"{out} already holds this run; nothing to compute.")
    page([out])
    print(out)


@app.command()
def lds(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared, in pairs.")],
    bank: Annotated[str, typer.Argument(help="Bank folder, or `digits`.")],
    measurement: Annotated[str, typer.Option(help="Which of the bank's outcomes to predict.")] = "simple",
    over: Annotated[str, typer.Option(help="What intervals are resampled over: subsets or queries.")] = "subsets",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How well runs' scores predict retraining: mean LDS per query split with its 95 % interval."""
    from headwater.bank import open_bank
    from headwater.evaluate.ground_truth import of_runs
    from headwater.pages.lds import lines

    found = of_runs(runs, open_bank(bank), measurement, over).as_json()
    one = next(iter(found["runs"].values())) if len(runs) == 1 else found
    print(json.dumps(one) if as_json else "\n".join(lines(found)))


@app.command()
def tune(
    method: Method,
    bank: Annotated[str, typer.Option(help="Bank folder, or `digits`.")],
    field: Annotated[list[str], typer.Option(help="Field to sweep; may be repeated: all combinations.")],
    values: Annotated[list[str], typer.Option(help="Its values, separated by commas (or a JSON list); one for each --field.")],
    train: Train = None,
    query: Query = None,
    model: ModelFolders = None,
    set_: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Names all random draws [default: 0].")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    store: Store = None,
    store_dtype: Kept = "float32",
    memory: Memory = 1.0,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    caption: Caption = None,
    ensemble: Ensemble = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sweep fields of a method against a bank: chosen on one half of the queries, reported on the other."""
    from headwater.attribution.sweep import lines, sweep
    from headwater.cli.arguments import Machine, Models, Reading, as_list, crew, experiment, fields_of

    if len(field) != len(values):
        raise OptionError(f"There are {len(field)} --field and {len(values)} --values; expected one list of values for each field.")
    swept = {name: as_list(text) for name, text in zip(field, values, strict=True)}
    if "checkpoints" in swept:  # as many are loaded as any setting asks for
        set_ = [*(set_ or []), f"checkpoints={max(swept['checkpoints'])}"]
    fields, models = fields_of(method, set_ or [], seed), Models(model or [], ensemble, _models(None), store=_store(store))
    what = experiment(method, fields, train, query, models, bank, Machine(device, memory, dtype), Reading(caption=caption))
    with _bar("features") as tick:
        found = sweep(what, swept, _store(store, tick, store_dtype, crew(workers, ray, gpus), memory))
    print(json.dumps(found) if as_json else "\n".join(lines(found)))


@bank_app.command("build")
def bank_build(
    bank: Annotated[Path, typer.Argument(help="Bank folder to build, to go on with, or to give more subsets, seeds or queries.")],
    recipe: Annotated[str | None, typer.Option(help="A recipe's name [default: the bank's own, else digits].")] = None,
    data: Annotated[str | None, typer.Option(help="Other training images than the recipe's.")] = None,
    held_out: Annotated[str | None, typer.Option(help="Other held-out images: the `val` queries.")] = None,
    config: Annotated[str | None, typer.Option(help="Another network, by name.")] = None,
    base: Annotated[str | None, typer.Option(help="Train adapters (LoRA) of this pipeline instead of a network.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapters [default: 128].")] = None,
    caption: Caption = None,
    subsets: Annotated[int | None, typer.Option(min=1, help="Subsets to compare with.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Models of each subset.")] = None,
    scheme: Annotated[str | None, typer.Option(help="half, stratified, bernoulli or group.")] = None,
    learning: Annotated[int | None, typer.Option(min=0, help="Further subsets, for methods that learn from retraining.")] = None,
    generated: Annotated[int | None, typer.Option(min=1, help="Generated queries.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each model.")] = None,
    measurements: Annotated[str | None, typer.Option(help="Outcomes to measure, separated by commas.")] = None,
    common: Annotated[bool | None, typer.Option(help="Same initial weights and noise for all subsets of a seed.")] = None,
    add_queries: Annotated[str | None, typer.Option(help="Pictures to add to the bank's queries.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [default: one for each core].")] = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    device: Device = "cpu",
    models: Annotated[Path | None, typer.Option(help="Where trained models are kept [default: beside the features].")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the trained models: queries can then be added without training.")] = True,
    store: Store = None,
) -> None:
    """Build a bank, or go on with one: one model for each (subset, seed), many at a time."""
    from headwater.cli.arguments import bank_place
    from headwater.retraining.build import build
    from headwater.retraining.changes import changed, recipe_of

    changes = {"data": data, "held_out": held_out, "config": config, "subsets": subsets, "seeds": seeds, "scheme": scheme}
    changes |= {"learning": learning, "generated": generated, "steps": steps, "measurements": measurements, "common": common}
    what = changed(recipe_of(bank, recipe), changes | {"base": base, "rank": rank, "caption": caption})
    place = bank_place(workers, ray, gpus, device, _models(models) if keep else None, _store(store))
    more = None if add_queries is None else replace(what.held_out, name=add_queries, count=None).open()
    with _bar("models") as tick:
        for done, total in build(bank, what, what.data.open(), what.held_out.open(), place, new_queries=more, warn=_say):
            tick(done, total)
    print(bank)


@bank_app.command("status")
def bank_status(bank: Annotated[str, typer.Argument(help="Bank folder, or `digits`.")]) -> None:
    """What a bank holds, and how much of it is trained."""
    from headwater.bank import open_bank, status

    print("\n".join(status(open_bank(bank))))


@app.command()
def plan(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name, or a bank folder: what the bank costs.")] = None,
    subsets: Annotated[int | None, typer.Option(min=1, help="Other number of subsets.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Other number of seeds.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes at once [default: one for each core].")] = None,
    method: Annotated[str | None, typer.Option(help="Without a recipe: what `attribute` with this method costs.")] = None,
    train: Train = None,
    query: Query = None,
    model: ModelFolders = None,
    lora: Lora = None,
    set_: Settings = None,
    resize: Resize = None,
    caption: Caption = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a bank, or with --method an attribution, would cost here, measured on a few pictures: time, memory, disk.

    A recipe: trainings, steps, hours, and each method on it. With --method: the options of `attribute`; encoding and features.
    """
    if (recipe is None) == (method is None):
        raise OptionError("plan takes either a recipe, or --method with --model, --train and --query; expected one of them.")
    if method is not None:
        from headwater.cli.arguments import Machine, Models, Reading, experiment, fields_of
        from headwater.cost.attribution import foreseen
        from headwater.cost.attribution import lines as told

        models, machine = Models(model or [], lora=lora), Machine(device, memory, dtype)
        fields, reading = fields_of(method, set_ or [], None), Reading(resize, caption)
        asked = experiment(method, fields, train, query, models, None, machine, reading)
        cost = foreseen(asked)
        print(json.dumps(cost) if as_json else "\n".join(told(asked, cost)))
        return
    from headwater.attribution.experiment import device as checked
    from headwater.cost.bank import lines
    from headwater.cost.bank import plan as planned
    from headwater.retraining.changes import changed, recipe_of

    folder = Path(recipe or "")
    there = (folder / "bank.json").exists()
    what = changed(recipe_of(folder, None if there else recipe), {"subsets": subsets, "seeds": seeds})
    found = planned(what, {"data": what.data.size(), "held_out": what.held_out.size()}, checked(device), workers)
    print(json.dumps(found) if as_json else "\n".join(lines(recipe or "", what, found)))


@app.command()
def counterfactual(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with scores of the bank's generated queries.")],
    bank: Annotated[str, typer.Option(help="Bank folder, or `digits`: data, model, and how it is trained.")],
    out: Annotated[Path, typer.Option(help="Folder to write: figures, pictures, report.")],
    queries: Annotated[int, typer.Option(min=1, help="How many generated pictures.")] = 12,
    remove: Annotated[str, typer.Option(help="How many strongest proponents go: numbers or percentages, by commas.")] = "10%",
    embedder: Annotated[str | None, typer.Option(help="Also compare by a CLIP folder or name, or package.module:function.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [default: one for each core].")] = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    device: Device = "cpu",
    models: Annotated[Path | None, typer.Option(help="Where trained models are kept [default: beside the features].")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the trained models.")] = True,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take away each picture's strongest training images, train again, make the picture again, and compare with random removal."""
    from headwater.bank import open_bank
    from headwater.cli.arguments import bank_place, embedding
    from headwater.evaluate.counterfactual import removal_counts
    from headwater.pages.counterfactual import lines, page
    from headwater.retraining.counterfactual import collect_results, plan_removals
    from headwater.retraining.counterfactual import remove as removals
    from headwater.run import open_run

    opened = open_bank(bank)
    counts = removal_counts(remove.split(","), len(opened.train))
    what = plan_removals(opened, [open_run(run) for run in runs], queries, counts)
    place = bank_place(workers, ray, gpus, device, _models(models) if keep else None, _store(store))
    embed = embedding(embedder, device)
    with _bar("retraining") as tick:
        for done, total in removals(what, out, place):
            tick(done, total)
    found = collect_results(what, out, place, embed)
    _say(str(page(out)))
    print(json.dumps(found) if as_json else "\n".join(lines(found)))


@app.command()
def credit(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    by: Annotated[
        str | None,
        typer.Option(help="label, group, prompt, or FILE.csv:column with a column `id`; by default group if there, else label."),
    ] = None,
    also: Annotated[
        str | None, typer.Option(help="Another column of that CSV file, such as licence, to tell of each group.")
    ] = None,
    queries: Annotated[int, typer.Option(min=0, help="Also a table for each of the first N queries.")] = 0,
    query: Annotated[str | None, typer.Option(help="Also a table for the query with this id.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A file to write, .csv or .jsonld: the queries asked for, or every one, and each group's figures."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Who gets the credit: each artist's, label's or other group's share of the scores, with 95 % intervals."""
    from headwater.pages.credit.files import check, write
    from headwater.pages.credit.run import chosen, credited
    from headwater.pages.credit.table import found, lines
    from headwater.run import open_run

    check(out, by, also)
    opened = open_run(run)
    rows, what = chosen(opened, queries, query), credited(opened, by, also)
    record = found(what, rows)
    if out is not None:
        with _bar("queries") as tick:
            write(out, what, rows or range(len(opened.queries)), tick)
    print(json.dumps(record) if as_json else "\n".join(lines(record)))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared on one page.")],
    out: Annotated[Path | None, typer.Option(help="The page to write [default: report.html in the first run].")] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries are shown in full.")] = 48,
) -> None:
    """Make the HTML page of one run, or of several methods side by side."""
    from headwater.pages.page import report as page

    print(page(runs, out, queries=queries))


@app.command()
def methods() -> None:
    """List the methods with their equations, fields and costs."""
    from headwater.cost.methods import lines

    print("\n".join(lines()))


def main() -> None:
    """Entry point: user errors become one paragraph on stderr and exit code 2."""
    debug = "--debug" in sys.argv
    argv = [word for word in sys.argv[1:] if word != "--debug"]
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(argv)
    except Stopped:
        _say("Stopped. Run the same command again: it goes on where it stopped.")
        sys.exit(130)
    except UserError as error:
        if debug:
            raise
        _say(f"headwater: {error.paragraph}")
        sys.exit(2)


def _stop(signum: int, frame: object) -> None:
    raise Stopped


def _store(root: Path | None, tick: Any = None, dtype: str = "float32", crew: Any = None, memory: float = 1.0) -> Any:
    from headwater.disk.store import FeatureStore, default_root, unheard

    return FeatureStore(root or default_root(), tick or unheard, dtype=dtype, crew=crew, memory=int(memory * 2**30))


def _models(root: Path | None) -> Path:
    from headwater.disk.store import default_root

    return root or default_root() / "models"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bar(title: str) -> Any:
    from headwater.cli.progress import bar

    return bar(title)
