"""A bank's recipe with changes: other data, another network, more subsets, longer training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.bank import read_info
from headwater.errors import OptionError
from headwater.models import loading, unet
from headwater.models.train import DIGITS, LORA, Recipe
from headwater.retraining.recipe import Adapters, BankRecipe, DataSource, from_fields
from headwater.retraining.recipes import recipe

FIELDS = ("subsets", "seeds", "scheme", "learning", "generated", "common")  # changed as they are


def recipe_of(bank: Path, name: str | None = None) -> BankRecipe:
    """The named recipe, else the recipe of the bank in the folder, else `digits`."""
    if name is None and (bank / "bank.json").exists():
        return from_fields(read_info(bank)["recipe"])
    return recipe(name or "digits")


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """Changes of a recipe; None leaves it as it is.

    `data`, `held_out`: names of sources, with `caption` for both; `config`: a network by name; `base` and
    `rank`: of adapters; `steps`: of training; `measurements`: names separated by commas. The rest are fields
    of the recipe.
    """

    data: str | None = None
    held_out: str | None = None
    caption: str | None = None
    config: str | None = None
    base: str | None = None
    rank: int | None = None
    steps: int | None = None
    measurements: str | None = None
    subsets: int | None = None
    seeds: int | None = None
    scheme: str | None = None
    learning: int | None = None
    generated: int | None = None
    common: bool | None = None


def changed(recipe: BankRecipe, changes: RecipeChanges) -> BankRecipe:
    """The recipe with the changes."""
    new = {name: value for name in FIELDS if (value := getattr(changes, name)) is not None}
    new["data"] = _source(recipe.data, changes.data, changes.caption)
    new["held_out"] = _source(recipe.held_out, changes.held_out, changes.caption)
    new |= _network(recipe, changes) | _adapters(recipe, changes)
    if changes.steps is not None:
        new["training"] = replace(new.get("training", recipe.training), steps=changes.steps)
    if changes.measurements is not None:
        new["measurements"] = tuple(word.strip() for word in changes.measurements.split(","))
    return replace(recipe, **new)


def _source(source: DataSource, name: str | None, caption: str | None) -> DataSource:
    """Another source, or another caption of it."""
    source = source if name is None else DataSource(name=name)
    return source if caption is None else replace(source, caption=caption)


def _network(recipe: BankRecipe, changes: RecipeChanges) -> dict[str, Any]:
    """The fields that a network by name changes. Other networks than `digits` are trained for longer."""
    if changes.config is None:
        return {}
    if changes.base is not None:
        raise OptionError(
            f"config is {changes.config} and base is {changes.base}; expected a network or adapters.",
            hint="Give --config or --base.",
        )
    longer = changes.config != "digits" and recipe.training in (DIGITS, LORA)
    network = {"model": unet.configuration(changes.config), "adapters": None}
    return network | ({"training": Recipe()} if longer else {})


def _adapters(recipe: BankRecipe, changes: RecipeChanges) -> dict[str, Any]:
    """The fields that a new base or rank changes. New adapters are trained with D-TRAK's recipe."""
    base = None if changes.base is None else loading.absolute_name(changes.base)
    parts: dict[str, Any] = {"base": base, "rank": changes.rank}
    new = {name: value for name, value in parts.items() if value is not None}
    if not new:
        return {}
    if recipe.adapters is not None:
        return {"adapters": replace(recipe.adapters, **new)}
    if base is None:
        raise OptionError(
            f"rank is {changes.rank}, but the recipe trains a network of its own; expected a base too.",
            hint="Give --base with --rank.",
        )
    return {"adapters": Adapters(**new), "model": {}, "training": LORA}
