"""The words of the command line, parsed: fields, lists of values, who does the work."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.methods import make, method_class
from headwater.models.device import available
from headwater.retraining.workplace import Workplace, workplace
from headwater.workers import Cluster, Crew, Pool

if TYPE_CHECKING:
    from headwater.families.embedding import Embedder


POINTED = r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?"  # JSON wants digits on both sides of the point


def parse(text: str) -> Any:
    """The value of a `--set`: JSON if it parses, a number such as .5, else a list if there are commas, else a
    word."""
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
    fields = distinct([_assignment(text) for text in settings], "--set")
    if seed is not None and fields.get("seed", seed) != seed:
        raise OptionError(f"--seed is {seed} and --set seed={fields['seed']}; expected one of them.")
    if seed is not None and "seed" in method_class(method).__dataclass_fields__:
        fields["seed"] = seed
    make(method, fields)
    return fields


def distinct(pairs: Sequence[tuple[str, Any]], option: str) -> dict[str, Any]:
    """The fields with their values; an OptionError for a field that the option gives twice."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise OptionError(
                f"{option} gives {name} twice, {fields[name]} and {value}; expected one of them."
            )
        fields[name] = value
    return fields


def bank_workplace(
    workers: int | None, ray: str | None, gpus: float, device: str, models: Path | None, store: FeatureStore
) -> Workplace:
    """Processes of this machine to train a bank, or a Ray cluster (where the device is not looked for
    here)."""
    jobs = crew(workers, ray, gpus)
    return workplace(device if ray is not None else available(device), jobs, models, store)


def crew(workers: int | None, ray: str | None, gpus: float) -> Crew | None:
    """Processes of this machine, or a Ray cluster; None if neither is asked for."""
    if ray is not None and workers is not None:
        raise OptionError(
            "Both --ray and --workers are given; expected one: a cluster knows how many jobs it can do at "
            "once."
        )
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
