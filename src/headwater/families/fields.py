"""The fields of a method: which are settings, and values of the types that they name."""

import dataclasses
import sys
import types
import typing
from functools import cache
from typing import Any

import numpy as np

from headwater.errors import OptionError

OBJECTS = ("bank",)  # fields that hold an object, not a setting


def settings_of(kind: Any) -> list[str]:
    """The names of a method's hyperparameters."""
    return [field.name for field in dataclasses.fields(kind) if field.name not in OBJECTS]


def check_types(method: Any) -> None:
    """For a method's `__post_init__`: lists become tuples, NumPy's numbers Python's; a wrong type is an
    OptionError."""
    for field in settings_of(type(method)):
        object.__setattr__(method, field, checked(type(method), field, getattr(method, field)))


def checked(kind: type, field: str, value: Any, of: str = "") -> Any:
    """The value as the field of this kind of method holds it. A wrong type is an OptionError; `of` names the
    method in it."""
    hint, value = _hints(kind)[field], _plain(value)
    if not _fits(value, hint):
        raise OptionError(f"{field}{of} is {value!r:.60}; expected {_words(hint)}.")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _plain(value: Any) -> Any:
    """Tuples for lists and arrays, and Python's numbers for NumPy's."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the type of a field: unions, tuples of one type, and whole numbers for floats."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(part, typing.get_args(kind)[0]) for part in value)
    if isinstance(value, bool):
        return kind is bool
    if kind is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(part) for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return f"a list ({_words(typing.get_args(kind)[0])} each)"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return plain.get(kind) or f"an object ({kind.__name__})"
