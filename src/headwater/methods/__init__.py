"""Attribution methods, one paper a file. A method is a frozen dataclass of hyperparameters with the verbs of
`Method`."""

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headwater.errors import OptionError, unknown
from headwater.families.fields import checked, settings_of

if TYPE_CHECKING:
    from headwater.bank import Bank
    from headwater.families.protocol import Method

METHODS = {
    "random": "headwater.methods.random:Random",
    "pixel": "headwater.methods.pixel:Pixel",
    "patch-similarity": "headwater.methods.patch_similarity:PatchSimilarity",
    "optimal-score": "headwater.methods.optimal_score:OptimalScore",
    "clip": "headwater.methods.clip:CLIP",
    "gradient": "headwater.methods.gradient:Gradient",
    "gradient-cos": "headwater.methods.gradient:GradientCos",
    "tracin": "headwater.methods.tracin:TracIn",
    "gas": "headwater.methods.gas:GAS",
    "trak": "headwater.methods.trak:TRAK",
    "d-trak": "headwater.methods.dtrak:DTRAK",
    "das": "headwater.methods.das:DAS",
    "relative-if": "headwater.methods.relative_if:RelativeIF",
    "renorm-if": "headwater.methods.renorm_if:RenormIF",
    "journey-trak": "headwater.methods.journey_trak:JourneyTRAK",
    "k-fac": "headwater.methods.kfac:KFAC",
    "ek-fac": "headwater.methods.ekfac:EKFAC",
    "nda": "headwater.methods.nda:NDA",
    "empirical-if": "headwater.methods.empirical_if:EmpiricalIF",
    "datamodel": "headwater.methods.datamodel:Datamodel",
}

VERBS = ("fit", "score", "self_scores", "resolved", "title", "signed")


def method_class(name: str) -> type:
    """The class called `name` in METHODS, or a user's own as `package.module:Class`."""
    if name not in METHODS and ":" not in name:
        raise unknown("method", name, METHODS)
    module, _, attribute = METHODS.get(name, name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"Could not import the method '{name}': {error}.") from error
    if not dataclasses.is_dataclass(kind) or not all(hasattr(kind, verb) for verb in VERBS):
        raise OptionError(f"{name} is not a method: expected a dataclass with {', '.join(VERBS)}.")
    return kind  # pyright: ignore[reportReturnType]


def make(name: str, fields: Mapping[str, Any], bank: "Bank | None" = None) -> "Method":
    """The method called `name` with these fields. An unknown field or a wrong type is an OptionError that
    names it.

    A method that learns from retrained models gets the `bank`.
    """
    kind = method_class(name)
    known = settings_of(kind)
    for field in fields:
        if field not in known:
            raise unknown(f"field of {name}", field, known)
    values = {field: checked(kind, field, value, f" of {name}") for field, value in fields.items()}
    return kind(**values, **({"bank": bank} if needs_bank(kind) else {}))


def field_values(method: "Method") -> dict[str, Any]:
    """A method's hyperparameters as JSON-ready values."""
    values = {name: getattr(method, name) for name in settings_of(method)}
    return json.loads(json.dumps(values, default=lambda embedder: embedder.name))


def needs_bank(kind: Any) -> bool:
    """Whether a method learns from the retrained models of a bank."""
    return "bank" in kind.__dataclass_fields__
