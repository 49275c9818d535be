"""Attribution methods, one paper a file. A method is a frozen dataclass of hyperparameters with the verbs of
`Method`."""

import dataclasses
import importlib
import json
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headwater.errors import OptionError, unknown

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
OBJECTS = ("bank",)  # fields that hold an object, not a setting


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
    hints = typing.get_type_hints(kind)
    known = settings_of(kind)
    checked = {}
    for field, value in fields.items():
        if field not in known:
            raise unknown(f"field of {name}", field, known)
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[field]):
            raise OptionError(f"{field} of {name} is {value!r}; expected {_words(hints[field])}.")
        checked[field] = value
    return kind(**checked, **({"bank": bank} if needs_bank(kind) else {}))


def check_types(method: Any) -> None:
    """For a method's `__post_init__`: turn lists into tuples, and refuse wrong types as `make` does."""
    hints = typing.get_type_hints(type(method))
    for field in settings_of(type(method)):
        value = getattr(method, field)
        if isinstance(value, list):
            object.__setattr__(method, field, value := tuple(value))
        if not _fits(value, hints[field]):
            raise OptionError(f"{field} is {value!r}; expected {_words(hints[field])}.")


def settings_of(kind: Any) -> list[str]:
    """The names of a method's hyperparameters."""
    return [field.name for field in dataclasses.fields(kind) if field.name not in OBJECTS]


def field_values(method: "Method") -> dict[str, Any]:
    """A method's hyperparameters as JSON-ready values."""
    values = {name: getattr(method, name) for name in settings_of(method)}
    return json.loads(json.dumps(values, default=lambda embedder: embedder.name))


def needs_bank(kind: Any) -> bool:
    """Whether a method learns from the retrained models of a bank."""
    return "bank" in kind.__dataclass_fields__


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the type of a field: unions, tuples of one type, and whole numbers for floats."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(part, typing.get_args(kind)[0]) for part in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _words(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(part) for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return f"a list ({_words(typing.get_args(kind)[0])} each)"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return plain.get(kind) or f"an object ({kind.__name__})"
