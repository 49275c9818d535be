"""A bank's recipe with changes: other data, another network, more subsets, longer training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.bank import read_info
from headwater.errors import OptionError
from headwater.models import loading, unet
from headwater.models.train import DIGITS, LORA, Recipe
from headwater.retraining.recipe import Adapters, BankRecipe, DataSource, from_fields, recipe


def recipe_of(bank: Path, name: str | None = None) -> BankRecipe:
    """The named recipe, else the recipe of the bank in the folder, else `digits`."""
    if name is None and (bank / "bank.json").exists():
        return from_fields(read_info(bank)["recipe"])
    return recipe(name or "digits")


def changed(recipe: BankRecipe, changes: Mapping[str, Any]) -> BankRecipe:
    """The recipe with the changes that are not None.

    Beside its fields: `config` (a network by name), `base` and `rank` (adapters), `caption` (of both
    sources), `steps` (of training). `data` and `held_out` are names of sources, `measurements` are separated
    by commas.
    """
    new = {key: value for key, value in changes.items() if value is not None}
    for side in {"data", "held_out"} & new.keys():
        new[side] = DataSource(name=new[side])
    if {"base", "config"} <= new.keys():
        raise OptionError(
            f"config is {new['config']} and base is {new['base']}; expected a network or adapters.",
            hint="Give --config or --base.",
        )
    if "config" in new:
        config = new.pop("config")
        new |= {"model": unet.configuration(config), "adapters": None}
        if config != "digits" and recipe.training in (DIGITS, LORA):
            new["training"] = Recipe()
    if {"base", "rank"} & new.keys():
        new |= _adapters(recipe, {name: new.pop(name) for name in ("base", "rank") if name in new})
    if (caption := new.pop("caption", None)) is not None:
        new |= {
            side: replace(new.get(side, getattr(recipe, side)), caption=caption)
            for side in ("data", "held_out")
        }
    if "steps" in new:
        new["training"] = replace(new.get("training", recipe.training), steps=new.pop("steps"))
    if "measurements" in new:
        new["measurements"] = tuple(word.strip() for word in new["measurements"].split(","))
    return replace(recipe, **new)


def _adapters(recipe: BankRecipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a new base or rank changes. New adapters are trained with D-TRAK's recipe."""
    if "base" in changes:
        changes = {**changes, "base": loading.absolute_name(changes["base"])}
    if recipe.adapters is not None:
        return {"adapters": replace(recipe.adapters, **changes)}
    if "base" not in changes:
        raise OptionError(
            f"rank is {changes['rank']}, but the recipe trains a network of its own; expected a base too.",
            hint="Give --base with --rank.",
        )
    return {"adapters": Adapters(**changes), "model": {}, "training": LORA}
