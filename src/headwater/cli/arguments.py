"""The words of the command line, parsed: fields, lists of values, who does the work."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.bank import read_info
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import OptionError
from headwater.methods import make, method_class
from headwater.models import loading, unet
from headwater.models.device import available
from headwater.models.train import DIGITS, LORA, Recipe
from headwater.retraining.build import Place
from headwater.retraining.recipe import Adapters, BankRecipe, Source, from_fields, recipe
from headwater.workers import Cluster, Crew, Pool

if TYPE_CHECKING:
    from headwater.families.embedding import Embedder


POINTED = r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?"  # JSON wants digits on both sides of the point


def parse(text: str) -> Any:
    """The value of a `--set`: JSON if it parses, a number such as .5, else a list if there are commas, else a word."""
    if re.fullmatch(POINTED, text):
        return float(text)
    try:
        return json.loads(text)
    except ValueError:
        return [parse(part.strip()) for part in text.split(",")] if "," in text else text


def as_list(text: str) -> list[Any]:
    """The values of a `--values`."""
    value = parse(text)
    return value if isinstance(value, list) else [value]


def parsed_fields(method: str, settings: list[str], seed: int | None) -> dict[str, Any]:
    """The fields that `--set` and `--seed` give, checked. A method that draws nothing takes any seed."""
    fields = dict(_assignment(text) for text in settings)
    if seed is not None and fields.get("seed", seed) != seed:
        raise OptionError(f"--seed is {seed} and --set seed={fields['seed']}; expected one of them.")
    if seed is not None and "seed" in method_class(method).__dataclass_fields__:
        fields["seed"] = seed
    make(method, fields)
    return fields


def bank_recipe(bank: Path, name: str | None, changes: Mapping[str, Any]) -> BankRecipe:
    """The named recipe, else that of the bank in the folder, else the digits', with the changes that are not None."""
    if name is None and (bank / "bank.json").exists():
        found = from_fields(read_info(bank)["recipe"])
    else:
        found = recipe(name or "digits")
    given = {key: value for key, value in changes.items() if value is not None}
    for side in {"data", "held_out"} & given.keys():
        given[side] = Source(name=given[side])
    if {"base", "config"} <= given.keys():
        raise OptionError(
            f"--config is {given['config']} and --base is {given['base']}; expected a network or adapters, one of them."
        )
    if "config" in given:
        config = given.pop("config")
        given |= {"model": unet.configuration(config), "adapters": None}
        if config != "digits" and found.training in (DIGITS, LORA):
            given["training"] = Recipe()
    if {"base", "rank"} & given.keys():
        given |= _adapters(found, {name: given.pop(name) for name in ("base", "rank") if name in given})
    if (caption := given.pop("caption", None)) is not None:
        given |= {side: replace(given.get(side, getattr(found, side)), caption=caption) for side in ("data", "held_out")}
    if "steps" in given:
        given["training"] = replace(given.get("training", found.training), steps=given.pop("steps"))
    if "measurements" in given:
        given["measurements"] = tuple(word.strip() for word in given["measurements"].split(","))
    return replace(found, **given)


def _adapters(found: BankRecipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of the recipe with another base or rank: adapters in place of a network of its own are trained as D-TRAK's."""
    if "base" in given:
        given = {**given, "base": loading.absolute_name(given["base"])}
    if found.adapters is not None:
        return {"adapters": replace(found.adapters, **given)}
    if "base" not in given:
        raise OptionError(f"--rank is {given['rank']}, but the recipe trains a network of its own; expected --base with it.")
    return {"adapters": Adapters(**given), "model": {}, "training": LORA}


def bank_place(
    workers: int | None, ray: str | None, gpus: float, device: str, models: Path | None, store: FeatureStore | None = None
) -> Place:
    """Who trains a bank: processes of this machine, or a Ray cluster (where the device is not looked for here)."""
    who = crew(workers, ray, gpus) or Pool(os.cpu_count() or 1 if device == "cpu" else 1)
    return Place(who, device if ray is not None else available(device), models, store or FeatureStore(default_root()))


def crew(workers: int | None, ray: str | None, gpus: float) -> Crew | None:
    """Processes of this machine, or a Ray cluster; None if neither is asked for."""
    if ray is not None and workers is not None:
        raise OptionError("Both --ray and --workers are given; expected one: a cluster knows how many jobs it can do at once.")
    if ray is not None:
        return Cluster(ray, gpus)
    return None if workers is None else Pool(workers)


def embedding(name: str | None, device: str) -> "Embedder | None":
    """The embedder of that name, if one is asked for."""
    if name is None:
        return None
    from headwater.families.embedding import embedder

    return embedder(name, available(device))


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OptionError(f"--set {text}: expected field=value, such as --set k=2048.")
    return name.strip(), parse(value.strip())
