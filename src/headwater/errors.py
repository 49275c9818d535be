"""Failures that a user can cause, in one short paragraph (seen, expected, what to do); warnings."""

import difflib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

Warn = Callable[[str], None]


class UserError(Exception):
    """Base of everything the command line reports without a traceback (exit code 2).

    The message speaks Python. `hint`: what to do on the command line, which adds it to the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:  # an error of a worker process arrives with its hint
        return _rebuilt, (type(self), str(self), self.hint)

    @property
    def paragraph(self) -> str:
        """The message and the hint, as the command line shows them."""
        return f"{self} {self.hint}".strip()


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


class DataWarning(UserWarning):
    """Something about images, labels or captions that is not an error."""


class Stopped(BaseException):
    """Ctrl-C. Not an Exception: nothing on the way may swallow it."""


def _rebuilt(error: type[UserError], message: str, hint: str) -> UserError:
    return error(message, hint=hint)


def to_warnings(text: str) -> None:
    """Warn a user of Python, at the line that called the package; the command line prints a note instead."""
    frame, depth, level = sys._getframe(1), 2, 2
    while frame is not None:  # to the end: another library may stand between two frames of the package
        depth += 1
        level = depth if frame.f_globals.get("__name__", "").startswith("headwater.") else level
        frame = frame.f_back
    warnings.warn(text, DataWarning, stacklevel=level)


def check_at_least(least: int, fields: Any, *names: str) -> None:
    """Raise an OptionError if one of the named fields of an object is below `least`."""
    for name in names:
        if getattr(fields, name) < least:
            raise OptionError(f"{name} is {getattr(fields, name)}; expected {least} or more.")


def to_stderr(text: str) -> None:
    """Print a line of a long job, which may tell of its way as well as of what is not as it should be."""
    print(text, file=sys.stderr)


def once(warn: Warn, texts: list[str] | None = None) -> Warn:
    """`warn` for each text only the first time, since several models or blocks have the same to say; the list
    `texts` collects them."""
    texts = [] if texts is None else texts

    def first(text: str) -> None:
        if text not in texts:
            texts.append(text)
            warn(text)

    return first


def unknown(kind: str, word: str, known: Iterable[str]) -> OptionError:
    """The error for a name that is not among `known`, with the nearest names first."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return OptionError(f"There is no {kind} '{word}'.{guess} Known: {', '.join(names)}.")
