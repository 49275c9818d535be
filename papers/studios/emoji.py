"""The two studios' emoji, with prompts that name concept and studio; and the concepts of the queries."""

from pathlib import Path

import numpy as np

from headwater import seeds
from headwater.disk.npz import arrays
from headwater.examples import Examples

STUDIOS = ("google", "twitter")
PROMPT = "a {concept} emoji in {studio} style"


def emoji(data: Path, places: tuple[int, int] | None = None) -> Examples:
    """Both studios' pictures, or those from one place up to another.

    The group is the studio; the id is studio, place and concept.
    """
    parts, rows = [], slice(*(places or (None,)))
    for studio in STUDIOS:
        file = arrays(data / f"emoji_{studio}_64.npz", ("images", "name"))
        names = [concept(name) for name in file["name"][rows]]
        ids = tuple(f"{studio}-{place:04d} {name}" for place, name in enumerate(names, rows.start or 0))
        prompts = tuple(PROMPT.format(concept=name, studio=studio) for name in names)
        parts.append(Examples(file["images"][rows], ids=ids, prompts=prompts, groups=(studio,) * len(names)))
    ids, prompts, groups = (
        tuple(value for part in parts for value in getattr(part, name) or ())
        for name in ("ids", "prompts", "groups")
    )
    return Examples(np.concatenate([part.images for part in parts]), ids=ids, prompts=prompts, groups=groups)


def concept(name: str) -> str:
    """A file's name as words."""
    return " ".join(name.replace("-", " ").replace("_", " ").split())


def concepts(train: Examples) -> np.ndarray:
    """Every training image's concept: its id without studio and place."""
    return np.array([name.partition(" ")[2] for name in train.ids])


def query_concepts(train: Examples, count: int) -> list[str]:
    """Concepts drawn at random, half of them (as far as there are any) with skin tones.

    A studio drew those more than once.
    """
    names, drawn = np.unique(concepts(train), return_counts=True)
    plain, toned = (sorted(names[drawn <= len(STUDIOS)]), sorted(names[drawn > len(STUDIOS)]))
    half = min(count // 2, len(toned))
    picks = []
    for words, size, name in ((toned, half, "toned"), (plain, count - half, "plain")):
        picks += [words[i] for i in seeds.generator(0, "studios", name).permutation(len(words))[:size]]
    return picks
