"""Run folders as they lie on disk: opened, checked, compared. Numpy only."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.disk.npy import read_npy
from headwater.disk.npz import arrays
from headwater.errors import DataError
from headwater.examples import Examples
from headwater.patches.regions import Regions, read_regions
from headwater.scores import Scores

WORDS = ("train_ids", "train_groups", "train_prompts", "query_ids", "query_split", "query_groups", "query_prompts")


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run folder holds: scores, what is known of both sides, and such training pictures as it keeps, by row."""

    folder: Path
    name: str
    info: dict[str, Any]
    scores: Scores
    queries: Examples
    pictures: Mapping[int, UInt8[np.ndarray, "h w c"]]
    labels: Int64[np.ndarray, " n"] | None
    groups: tuple[str, ...] | None = None  # of the training images, as are labels and prompts
    prompts: tuple[str, ...] | None = None
    regions: Regions | None = None

    @property
    def signed(self) -> bool:
        """Whether scores below 0 mean anything: if not, they are similarities, and the least similar is no opponent."""
        return bool(self.info.get("signed", self.scores.values.min() < 0))


def open_run(folder: Path) -> RunFolder:
    """A run folder, checked; damage is told plainly."""
    if not (folder / "run.json").exists():
        raise DataError(f"There is no run in {folder}: it has no run.json. Make one with `headwater attribute … --out {folder}`.")
    try:
        info = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"Could not read {folder / 'run.json'}: {error}. Make the run again with --force.") from error
    have = _kept(folder / "pictures.npz")
    words = {name: tuple(have[name].tolist()) for name in WORDS if name in have}
    q, n = len(words["query_ids"]), len(words["train_ids"])
    values, own = read_npy(folder / "scores.npy"), read_npy(folder / "self.npy")
    unknown = own.shape == (n,) and np.isnan(own).all()  # of a method that cannot tell
    if values.shape != (q, n) or own.shape != (n,) or not (unknown or np.isfinite(own).all()):
        raise DataError(
            f"The run in {folder} has scores {list(values.shape)} and self-influence {list(own.shape)} for {q} queries and {n} "
            f"training images; expected [{q}, {n}] and [{n}], all finite. Make the run again with --force."
        )
    title, method = str(info.get("title") or "").rstrip("."), str(info.get("method") or folder.name)
    return RunFolder(
        folder,
        title if 0 < len(title) <= 32 else method,  # a longer title does not fit a table
        info,
        Scores(values, words["query_ids"], words["train_ids"], own),
        _queries(have, words),
        dict(zip(have["train_rows"].tolist(), Examples(have["train_images"]).images, strict=True)),
        have.get("train_labels"),
        words.get("train_groups"),
        words.get("train_prompts"),
        _regions(folder, q, n, bool(info.get("maps"))),
    )


def chosen(queries: Examples, count: int) -> list[int]:
    """The queries shown: the first few of every split, as many of each where there are enough, in input order."""
    before: Counter[str] = Counter()
    turns = []
    for row, split in enumerate(queries.split or ("",) * len(queries)):
        turns.append((before[split], row))
        before[split] += 1
    return sorted(row for _, row in sorted(turns)[: max(1, count)])


def told_apart(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Runs of one name are called by the fields they differ in as well; where that does not tell them apart, by their folders."""
    alike = {name: [run for run in runs if run.name == name] for name in {run.name for run in runs}}
    return [run if len(alike[run.name]) == 1 else replace(run, name=f"{run.name} ({_mark(run, alike[run.name])})") for run in runs]


def _mark(run: RunFolder, alike: Sequence[RunFolder]) -> str:
    """What this run has for itself among those of its name."""
    fields = [run.info.get("fields") or {} for run in alike]
    mine = run.info.get("fields") or {}
    differing = [name for name in mine if any(each.get(name) != mine[name] for each in fields)]
    words = [", ".join(f"{name} {each.get(name)}" for name in differing) for each in fields]
    own = ", ".join(f"{name} {mine[name]}" for name in differing)
    return own if words.count(own) == 1 and len(own) <= 48 else str(run.folder)


def _kept(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `pictures.npz`: those that a page cannot do without are there, and what belongs together is of one length."""
    twins = {"train_images": "train_rows", "train_labels": "train_ids", "query_images": "query_ids"}
    twins |= {f"query_{name}": "query_ids" for name in ("labels", "split", "groups", "prompts")}
    twins |= {f"train_{name}": "train_ids" for name in ("groups", "prompts")}
    have = arrays(path, [*twins, "train_rows", "train_ids", "query_ids"])
    for name, twin in twins.items():
        if twin not in have or (name not in have and name.endswith("images")):
            raise DataError(f"{path} lacks `{name}` or `{twin}`; expected both. Make the run again with --force.")
        if name in have and len(have[name]) != len(have[twin]):
            raise DataError(f"{path} has {len(have[name])} `{name}` and {len(have[twin])} `{twin}`; expected as many.")
    return {name: column.astype(np.int64) if name.endswith("labels") else column for name, column in have.items()}


def _queries(have: Mapping[str, np.ndarray], words: Mapping[str, tuple[str, ...]]) -> Examples:
    columns: dict[str, Any] = {name: words.get(f"query_{name}") for name in ("groups", "prompts", "split")}
    return Examples(have["query_images"], words["query_ids"], have.get("query_labels"), **columns)


def _within(rows: Int64[np.ndarray, "*_"], n: int) -> bool:
    return bool((rows >= 0).all() and (rows < n).all())


def _regions(folder: Path, q: int, n: int, maps: bool) -> Regions | None:
    """The maps that a run has, of its own queries and training images; `maps`: whether it must have some."""
    regions = read_regions(folder / "regions.npz")
    if regions is None and maps:
        raise DataError(f"{folder} lacks regions.npz, which its run.json says it has. Make the run again with --force.")
    if regions is not None and not (_within(regions.queries, q) and _within(regions.images, n)):
        raise DataError(f"{folder / 'regions.npz'} is of other pictures than the run. Make the run again with --force.")
    return regions


def check_same(a: RunFolder, b: RunFolder) -> None:
    """Refuse runs side by side that were not made from the same pictures."""
    kept = a.pictures.keys() & b.pictures.keys()
    train = a.scores.train_ids == b.scores.train_ids and all(np.array_equal(a.pictures[i], b.pictures[i]) for i in kept)
    query = a.scores.query_ids == b.scores.query_ids and np.array_equal(a.queries.images, b.queries.images)
    shapes = a.scores.values.shape, b.scores.values.shape
    for axis, side, same, what in ((1, "train", train, "training images"), (0, "query", query, "queries")):
        prints = [(run.info.get(side) or {}).get("fingerprint", "unknown") for run in (a, b)]
        if not same or (prints[0] != prints[1] and "unknown" not in prints):
            raise DataError(
                f"The run {b.folder} has other {what} than {a.folder}: {shapes[1][axis]:,} (fingerprint {prints[1]}) against "
                f"{shapes[0][axis]:,} (fingerprint {prints[0]}). Expected the same, in the same order. Report them one by one."
            )
