"""Which training sets to retrain on: rows of True for the images kept, each from a stream of its own.

A larger family begins with the smaller one, and no set occurs twice.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Int

from headwater import seeds
from headwater.errors import DataError, OptionError, unknown
from headwater.examples import Examples

Kept = Bool[np.ndarray, " n"]
ATTEMPTS = 100


def half(random: np.random.Generator, examples: Examples, part: float) -> Kept:
    """Exactly `part` of the images, all alike."""
    return _chosen(len(examples), random.permutation(len(examples))[: round(part * len(examples))])


def stratified(random: np.random.Generator, examples: Examples, part: float) -> Kept:
    """Exactly `part` of the images, and of each class `part` to within one image."""
    rows, edges = [], [0]
    classes = _classes(examples)
    for name in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == name))
        edges.append(edges[-1] + len(members))
        rows.append(members[: round(part * edges[-1]) - round(part * edges[-2])])
    return _chosen(len(examples), np.concatenate(rows))


def bernoulli(random: np.random.Generator, examples: Examples, part: float) -> Kept:
    """Every image with probability `part`, independently: sizes differ."""
    return random.random(len(examples)) < part


def group(random: np.random.Generator, examples: Examples, part: float) -> Kept:
    """Whole groups (artists, folders, else classes): `part` of them."""
    names = np.array(examples.groups) if examples.groups is not None else _classes(examples)
    every = np.unique(names)
    return np.isin(names, random.permutation(every)[: round(part * len(every))])


SCHEMES: Mapping[str, Callable[[np.random.Generator, Examples, float], Kept]] = {
    "half": half,
    "stratified": stratified,
    "bernoulli": bernoulli,
    "group": group,
}


def subsets(
    scheme: str,
    count: int,
    examples: Examples,
    part: float = 0.5,
    *,
    family: str = "subset",
    apart: Bool[np.ndarray, "a n"] | None = None,
) -> Bool[np.ndarray, "m n"]:
    """`count` subsets of the family; none is empty, all of it, drawn before, or among `apart`."""
    if scheme not in SCHEMES:
        raise unknown("scheme of subsets", scheme, SCHEMES)
    if not 0 < part < 1:
        raise OptionError(f"part is {part}; expected a number between 0 and 1.")
    rows: list[Kept] = []
    seen = {bytes(len(examples)), bytes([1]) * len(examples), *([] if apart is None else (row.tobytes() for row in apart))}
    for i in range(count):
        for attempt in range(ATTEMPTS):
            name = (family, i) if attempt == 0 else (family, i, attempt)
            row = SCHEMES[scheme](seeds.stream(0, *name), examples, part)
            if row.tobytes() not in seen:
                break
        else:
            raise OptionError(f"There are not {count} different subsets of this kind ({scheme}, part {part:g}); ask for fewer.")
        seen.add(row.tobytes())
        rows.append(row)
    return np.array(rows, bool).reshape(count, len(examples))


def _chosen(n: int, rows: Int[np.ndarray, " b"]) -> Kept:
    kept = np.zeros(n, bool)
    kept[rows] = True
    return kept


def _classes(examples: Examples) -> np.ndarray:
    if examples.labels is not None:
        return examples.labels
    if examples.groups is not None:
        return np.array(examples.groups)
    raise DataError(
        "These subsets go by class or group, and the images have neither labels nor groups. Use a folder with a subfolder "
        "for each, or the scheme 'half'."
    )
