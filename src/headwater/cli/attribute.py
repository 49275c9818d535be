"""Commands that attribute: attribute, tune, and the demo."""

import json
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import (
    BankFolder,
    Caption,
    Device,
    Dtype,
    Ensemble,
    Gpus,
    Lora,
    Memory,
    Method,
    ModelFolders,
    Query,
    Ray,
    Resize,
    Settings,
    Store,
    StoreDtype,
    Train,
    Workers,
    bar,
    feature_store,
    model_cache,
    note,
    say,
)
from headwater.errors import OptionError

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the model, the pictures and the report go.")] = Path(
        "headwater-demo"
    ),
    store: Store = None,
) -> None:
    """Train a small model on digits, generate 16 pictures, attribute them, and write the report: under five
    minutes."""
    from headwater.cli.demo import demo as steps

    page = steps(out, feature_store(store), say=say, bar=bar)
    say(
        "The page shows, for each of 16 generated digits, which training digits the model drew on, and how "
        "far to trust that."
    )
    print(page.resolve())


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
    store_dtype: StoreDtype = "float32",
    memory: Memory = 1.0,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    resize: Resize = None,
    caption: Caption = None,
    ensemble: Ensemble = None,
    maps: Annotated[
        bool, typer.Option("--maps/--no-maps", help="Draw which part of a picture came from where (nda).")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run with other settings.")] = False,
) -> None:
    """Score every training image for every query, and write the run folder with its report."""
    from headwater.attribution.experiment import run
    from headwater.attribution.open import Machine, Models, Sources, open_experiment
    from headwater.cli.arguments import crew, parsed_fields
    from headwater.pages.page import report as page

    fields = parsed_fields(method, set_ or [], seed)
    plain = feature_store(store)
    models = Models(model or [], ensemble, model_cache(None, plain), lora, plain)
    sources, machine = Sources(train, query, resize, caption), Machine(device, dtype)
    experiment = open_experiment(method, fields, sources, models, bank, machine, note)
    with bar("features") as tick:
        features = feature_store(store, tick, store_dtype, crew(workers, ray, gpus), memory)
        is_new = run(experiment, out, features, force=force, maps=maps)
    if not is_new:
        say(f"{out} already holds this run; nothing to compute.")
    page([out])
    print(out)


@app.command()
def tune(
    method: Method,
    bank: Annotated[str, typer.Option(help="Bank folder, or `digits`.")],
    field: Annotated[list[str], typer.Option(help="Field to sweep; may be repeated: all combinations.")],
    values: Annotated[
        list[str],
        typer.Option(help="Its values, separated by commas (or a JSON list); one for each --field."),
    ],
    train: Train = None,
    query: Query = None,
    model: ModelFolders = None,
    set_: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Names all random draws [default: 0].")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    store: Store = None,
    store_dtype: StoreDtype = "float32",
    memory: Memory = 1.0,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    caption: Caption = None,
    ensemble: Ensemble = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sweep fields of a method against a bank: chosen on one half of the queries, reported on the other."""
    from headwater.attribution.open import Machine, Models, Sources, open_experiment
    from headwater.attribution.sweep import as_text, sweep
    from headwater.cli.arguments import as_list, crew, distinct, parsed_fields

    if len(field) != len(values):
        raise OptionError(
            f"There are {len(field)} --field and {len(values)} --values; expected one list of values for "
            "each field."
        )
    swept = distinct([(name, as_list(text)) for name, text in zip(field, values, strict=True)], "--field")
    counts = [count for count in swept.get("checkpoints", []) if isinstance(count, int)]
    if counts:  # as many are loaded as any setting asks for
        set_ = [*(set_ or []), f"checkpoints={max(counts)}"]
    fields = parsed_fields(method, set_ or [], seed)
    plain = feature_store(store)
    models = Models(model or [], ensemble, model_cache(None, plain), store=plain)
    sources, machine = Sources(train, query, caption=caption), Machine(device, dtype)
    experiment = open_experiment(method, fields, sources, models, bank, machine, note)
    with bar("features") as tick:
        figures = sweep(
            experiment, swept, feature_store(store, tick, store_dtype, crew(workers, ray, gpus), memory)
        )
    print(json.dumps(figures.as_json()) if as_json else as_text(figures))
