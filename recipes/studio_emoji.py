"""The two studios' emoji, with prompts that name concept and studio; and the concepts that pictures are asked for."""

from pathlib import Path

import numpy as np

from headwater import seeds
from headwater.disk.npz import arrays
from headwater.examples import Examples

STUDIOS = ("google", "twitter")
PROMPT = "a {concept} emoji in {studio} style"


def emoji(data: Path, places: tuple[int, int] | None = None) -> Examples:
    """Both studios' pictures, or those from one place up to another. Group: the studio; id: studio, place and concept."""
    found, some = [], slice(*(places or (None,)))
    for studio in STUDIOS:
        have = arrays(data / f"emoji_{studio}_64.npz", ("images", "name"))
        names = [concept(name) for name in have["name"][some]]
        ids = tuple(f"{studio}-{place:04d} {name}" for place, name in enumerate(names, some.start or 0))
        prompts = tuple(PROMPT.format(concept=name, studio=studio) for name in names)
        found.append(Examples(have["images"][some], ids=ids, prompts=prompts, groups=(studio,) * len(names)))
    both = [tuple(each for studio in found for each in getattr(studio, name) or ()) for name in ("ids", "prompts", "groups")]
    return Examples(np.concatenate([studio.images for studio in found]), ids=both[0], prompts=both[1], groups=both[2])


def concept(name: str) -> str:
    """A file's name as words."""
    return " ".join(name.replace("-", " ").replace("_", " ").split())


def concepts(train: Examples) -> np.ndarray:
    """Every training image's concept: its id without studio and place."""
    return np.array([each.partition(" ")[2] for each in train.ids])


def asked(train: Examples, count: int) -> list[str]:
    """Concepts to ask for, half of them with skin tones as far as there are any: a studio drew those more than once."""
    names, drawn = np.unique(concepts(train), return_counts=True)
    plain, toned = (sorted(names[drawn <= len(STUDIOS)]), sorted(names[drawn > len(STUDIOS)]))
    some = min(count // 2, len(toned))
    picks = []
    for words, many, named in ((toned, some, "toned"), (plain, count - some, "plain")):
        picks += [words[i] for i in seeds.generator(0, "studios", named).permutation(len(words))[:many]]
    return picks
