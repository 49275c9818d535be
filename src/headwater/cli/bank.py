"""Commands that retrain: bank build, bank status, counterfactual."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import (
    Caption,
    Device,
    Gpus,
    ModelCache,
    Processes,
    Ray,
    Store,
    bar,
    feature_store,
    model_cache,
    note,
    say,
)

app = typer.Typer()
bank_app = typer.Typer(
    no_args_is_help=True, help="Ground truth: retrain on subsets of the training set and measure."
)


@bank_app.command("build")
def bank_build(
    bank: Annotated[
        Path,
        typer.Argument(
            help="Bank folder to build, to go on with, or to give more subsets, seeds or queries."
        ),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name [default: the bank's own, else digits].")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Other training images than the recipe's.")] = None,
    held_out: Annotated[str | None, typer.Option(help="Other held-out images: the `val` queries.")] = None,
    config: Annotated[str | None, typer.Option(help="Another network, by name.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Train adapters (LoRA) of this pipeline instead of a network.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapters [default: 128].")] = None,
    caption: Caption = None,
    subsets: Annotated[int | None, typer.Option(min=1, help="Subsets to compare with.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Models of each subset.")] = None,
    scheme: Annotated[str | None, typer.Option(help="half, stratified, bernoulli or group.")] = None,
    learning: Annotated[
        int | None, typer.Option(min=0, help="Further subsets, for methods that learn from retraining.")
    ] = None,
    generated: Annotated[int | None, typer.Option(min=1, help="Generated queries.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each model.")] = None,
    measurements: Annotated[
        str | None, typer.Option(help="Outcomes to measure, separated by commas.")
    ] = None,
    common: Annotated[
        bool | None, typer.Option(help="Same initial weights and noise for all subsets of a seed.")
    ] = None,
    add_queries: Annotated[str | None, typer.Option(help="Pictures to add to the bank's queries.")] = None,
    workers: Processes = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    device: Device = "cpu",
    models: ModelCache = None,
    keep: Annotated[
        bool, typer.Option(help="Keep the trained models: queries can then be added without training.")
    ] = True,
    store: Store = None,
) -> None:
    """Build a bank, or go on with one: one model for each (subset, seed), many at a time."""
    from headwater.cli.arguments import bank_workplace
    from headwater.retraining.build import build
    from headwater.retraining.changes import RecipeChanges, changed, recipe_of

    changes = RecipeChanges(
        data=data,
        held_out=held_out,
        caption=caption,
        config=config,
        base=base,
        rank=rank,
        steps=steps,
        measurements=measurements,
        subsets=subsets,
        seeds=seeds,
        scheme=scheme,
        learning=learning,
        generated=generated,
        common=common,
    )
    plan = changed(recipe_of(bank, recipe), changes)
    features = feature_store(store)
    place = bank_workplace(
        workers, ray, gpus, device, model_cache(models, features) if keep else None, features
    )
    added = None if add_queries is None else replace(plan.held_out, name=add_queries, count=None).open(note)
    with bar("models") as tick:
        for finished, total in build(
            bank, plan, plan.data.open(note), plan.held_out.open(note), place, new_queries=added, warn=say
        ):
            tick(finished, total)
    print(bank)


@bank_app.command("status")
def bank_status(bank: Annotated[str, typer.Argument(help="Bank folder, or `digits`.")]) -> None:
    """What a bank holds, and how much of it is trained."""
    from headwater.bank import open_bank, status

    print("\n".join(status(open_bank(bank))))


@app.command()
def counterfactual(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders with scores of the bank's generated queries.")
    ],
    bank: Annotated[str, typer.Option(help="Bank folder, or `digits`: data, model, and how it is trained.")],
    out: Annotated[Path, typer.Option(help="Folder to write: figures, pictures, report.")],
    queries: Annotated[int, typer.Option(min=1, help="How many generated pictures.")] = 12,
    remove: Annotated[
        str, typer.Option(help="How many strongest proponents go: numbers or percentages, by commas.")
    ] = "10%",
    embedder: Annotated[
        str | None, typer.Option(help="Also compare by a CLIP folder or name, or package.module:function.")
    ] = None,
    workers: Processes = None,
    ray: Ray = None,
    gpus: Gpus = 0.0,
    device: Device = "cpu",
    models: ModelCache = None,
    keep: Annotated[bool, typer.Option(help="Keep the trained models.")] = True,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take away each picture's strongest training images, train again, make the picture again, and compare
    with random removal."""
    from headwater.bank import open_bank
    from headwater.cli.arguments import bank_workplace, embedding
    from headwater.evaluate.counterfactual import removal_counts
    from headwater.pages.counterfactual import as_text, page
    from headwater.retraining.counterfactual import collect_results, plan_removals
    from headwater.retraining.counterfactual import remove as removals
    from headwater.run import open_run

    opened = open_bank(bank)
    counts = removal_counts(remove.split(","), len(opened.train))
    plan = plan_removals(opened, [open_run(run) for run in runs], queries, counts)
    features = feature_store(store)
    place = bank_workplace(
        workers, ray, gpus, device, model_cache(models, features) if keep else None, features
    )
    embed = embedding(embedder, device)
    with bar("retraining") as tick:
        for finished, total in removals(plan, out, place):
            tick(finished, total)
    figures = collect_results(plan, out, place, embed)
    say(str(page(out)))
    print(json.dumps(figures.as_json()) if as_json else as_text(figures))
