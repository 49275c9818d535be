"""What a bank or an attribution will cost: plan."""

import json
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import (
    Caption,
    Device,
    Dtype,
    Lora,
    Memory,
    ModelFolders,
    Query,
    Resize,
    Settings,
    Train,
    gibibytes,
    note,
)
from headwater.errors import OptionError

app = typer.Typer()


@app.command()
def plan(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name, or a bank folder: what the bank costs.")
    ] = None,
    subsets: Annotated[int | None, typer.Option(min=1, help="Other number of subsets.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Other number of seeds.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at once [default: one for each core].")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Without a recipe: what `attribute` with this method costs.")
    ] = None,
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
    """What a bank, or with --method an attribution, would cost here, measured on a few pictures: time,
    memory, disk.

    A recipe: trainings, steps, hours, and each method on it. With --method: the options of `attribute`;
    encoding and features."""
    if (recipe is None) == (method is None):
        raise OptionError(
            "plan takes either a recipe, or --method with --model, --train and --query; expected one of them."
        )
    if method is not None:
        from headwater.attribution.open import Machine, Models, Sources, open_experiment
        from headwater.cli.arguments import parsed_fields
        from headwater.cost.attribution import as_text, plan_attribution

        fields, sources = parsed_fields(method, set_ or [], None), Sources(train, query, resize, caption)
        models, machine = Models(model or [], lora=lora), Machine(device, dtype)
        experiment = open_experiment(method, fields, sources, models, None, machine, note)
        attribution = plan_attribution(experiment, gibibytes(memory))
        print(json.dumps(attribution.as_json()) if as_json else as_text(experiment, attribution))
        return
    from headwater.cost.bank import as_text, plan_bank
    from headwater.models.device import available
    from headwater.retraining.changes import RecipeChanges, changed, recipe_of

    folder = Path(recipe or "")
    is_bank = (folder / "bank.json").exists()
    named = recipe_of(folder, None if is_bank else recipe)
    chosen = changed(named, RecipeChanges(subsets=subsets, seeds=seeds))
    sizes = chosen.data.size(note), chosen.held_out.size(note)
    costs = plan_bank(chosen, *sizes, available(device), workers)
    print(json.dumps(costs.as_json()) if as_json else as_text(recipe or "", chosen, costs))
