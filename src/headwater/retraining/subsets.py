"""Subsets of a training set to retrain on: rows of True, each from its own random stream.

A larger family begins with the smaller one, and no subset occurs twice.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Int

from headwater import seeds
from headwater.errors import DataError, OptionError, unknown
from headwater.examples import Examples

Mask = Bool[np.ndarray, " n"]
ATTEMPTS = 100


def half(random: np.random.Generator, examples: Examples, part: float) -> Mask:
    """Exactly `part` of the images, drawn without regard to class."""
    return _mask(len(examples), random.permutation(len(examples))[: round(part * len(examples))])


def stratified(random: np.random.Generator, examples: Examples, part: float) -> Mask:
    """Exactly `part` of the images, and `part` of each class to within one image."""
    rows, edges = [], [0]
    classes = _classes(examples)
    for name in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == name))
        edges.append(edges[-1] + len(members))
        rows.append(members[: round(part * edges[-1]) - round(part * edges[-2])])
    return _mask(len(examples), np.concatenate(rows))


def bernoulli(random: np.random.Generator, examples: Examples, part: float) -> Mask:
    """Every image with probability `part`, independently, so that sizes differ."""
    return random.random(len(examples)) < part


def group(random: np.random.Generator, examples: Examples, part: float) -> Mask:
    """`part` of the groups (artists, folders, else classes), each of them whole."""
    names = np.array(examples.groups) if examples.groups is not None else _classes(examples)
    groups = np.unique(names)
    return np.isin(names, random.permutation(groups)[: round(part * len(groups))])


SCHEMES: Mapping[str, Callable[[np.random.Generator, Examples, float], Mask]] = {
    "half": half,
    "stratified": stratified,
    "bernoulli": bernoulli,
    "group": group,
}


def check_scheme(scheme: str, part: float) -> None:
    """Raise an OptionError where no subset can be drawn by a scheme with this name and this part."""
    if scheme not in SCHEMES:
        raise unknown("scheme", scheme, SCHEMES)
    if not 0 < part < 1:
        raise OptionError(f"part is {part}; expected a number between 0 and 1.")


def draw_subsets(
    scheme: str,
    count: int,
    examples: Examples,
    part: float = 0.5,
    *,
    family: str = "subset",
    apart: Bool[np.ndarray, "a n"] | None = None,
) -> Bool[np.ndarray, "m n"]:
    """`count` subsets: not empty, not all images, different from each other and from `apart`."""
    check_scheme(scheme, part)
    rows: list[Mask] = []
    taken = {bytes(len(examples)), bytes([1]) * len(examples)}
    if apart is not None:
        taken |= {row.tobytes() for row in apart}
    for i in range(count):
        tries = (SCHEMES[scheme](random, examples, part) for random in _generators(family, i))
        row = next((row for row in tries if row.tobytes() not in taken), None)
        if row is None:
            raise OptionError(
                f"There are not {count} different subsets ({scheme}, part {part:g}); ask for fewer."
            )
        taken.add(row.tobytes())
        rows.append(row)
    return np.array(rows, bool).reshape(count, len(examples))


def _generators(family: str, i: int) -> Iterator[np.random.Generator]:
    """A generator for each attempt at a subset."""
    for attempt in range(ATTEMPTS):
        yield seeds.generator(0, *((family, i) if attempt == 0 else (family, i, attempt)))


def _mask(n: int, rows: Int[np.ndarray, " b"]) -> Mask:
    mask = np.zeros(n, bool)
    mask[rows] = True
    return mask


def _classes(examples: Examples) -> np.ndarray:
    if examples.labels is not None:
        return examples.labels
    if examples.groups is not None:
        return np.array(examples.groups)
    raise DataError(
        "These subsets depend on class or group, and the images have neither labels nor groups. Use a folder "
        "with a subfolder for each class, or the scheme 'half'."
    )
