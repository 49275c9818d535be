"""Failures a user can cause, each told in one short paragraph: value seen, value expected, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of everything the command line reports without a traceback (exit code 2)."""


class DataError(UserError):
    """Images, labels or arrays that cannot be used as given."""


class ModelError(UserError):
    """A model folder that is missing, damaged or of the wrong kind."""


class OptionError(UserError):
    """A method, field or value that does not exist or is out of range."""


class NonFiniteError(UserError):
    """NaN or infinity in weights, gradients or scores: raised, never replaced."""


class StorageError(UserError):
    """A disk that is full, a file that is damaged, or a folder in use."""


class WorkerError(UserError):
    """A process that did a part of the work died."""


class Stopped(BaseException):
    """Ctrl-C. Not an Exception: nothing on the way may swallow it."""


def unknown(kind: str, word: str, known: Iterable[str]) -> OptionError:
    """The error for a name that is not among `known`, with the nearest names first."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return OptionError(f"There is no {kind} '{word}'.{guess} Known: {', '.join(names)}.")
