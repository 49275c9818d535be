"""Run folders: one attribution on disk, written, opened, checked and compared. Numpy only.

Files: `scores.npy` (float32 `[query, train]`), `self.npy` (float32 `[train]`), `regions.npz` (maps, of
methods that have some), `pictures.npz` (all that a page shows of both sides), `run.json` (fields, versions,
fingerprints; written last)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.disk.files import written
from headwater.disk.npy import read_npy, write_npy
from headwater.disk.npz import arrays
from headwater.errors import DataError
from headwater.examples import Examples
from headwater.patches.regions import Regions, read_regions, write_regions
from headwater.scores import Scores, top

# bytes of training pictures that a run folder keeps whole; of larger sets only those that a page shows
PICTURES = 2**26
AGAIN = "Make the run again with --force."
WORDS = (
    "train_ids",
    "train_groups",
    "train_prompts",
    "query_ids",
    "query_split",
    "query_groups",
    "query_prompts",
)


@dataclass(frozen=True, eq=False)
class Run:
    """An open run: scores, the columns of both sides, and the training pictures that the folder keeps, by
    row."""

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
        """Whether scores below 0 have a meaning: similarities have none, and the least similar is no
        opponent."""
        return bool(self.info.get("signed", self.scores.values.min() < 0))


def open_run(folder: Path) -> Run:
    """The run in a folder, checked; damage is a DataError."""
    info, have = _info(folder), _kept(folder / "pictures.npz")
    words = {name: tuple(have[name].tolist()) for name in WORDS if name in have}
    scores = _scores(folder, words["query_ids"], words["train_ids"])
    return Run(
        folder,
        _name(folder, info),
        info,
        scores,
        _queries(have, words),
        dict(zip(have["train_rows"].tolist(), Examples(have["train_images"]).images, strict=True)),
        have.get("train_labels"),
        words.get("train_groups"),
        words.get("train_prompts"),
        _regions(folder, scores, bool(info.get("maps"))),
    )


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.exists():
        raise DataError(
            f"There is no run in {folder}: it has no run.json.",
            hint=f"Make one with `headwater attribute … --out {folder}`.",
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"Could not read {path}: {error}.", hint=AGAIN) from error


def _name(folder: Path, info: Mapping[str, Any]) -> str:
    title, method = str(info.get("title") or "").rstrip("."), str(info.get("method") or folder.name)
    return title if 0 < len(title) <= 32 else method  # a longer title does not fit a table


def _scores(folder: Path, query_ids: tuple[str, ...], train_ids: tuple[str, ...]) -> Scores:
    """The scores of a run, checked against its pictures."""
    values, self_scores = read_npy(folder / "scores.npy"), read_npy(folder / "self.npy")
    q, n = len(query_ids), len(train_ids)
    unknown = self_scores.shape == (n,) and np.isnan(self_scores).all()  # of a method that cannot know them
    if values.shape != (q, n) or self_scores.shape != (n,) or not (unknown or np.isfinite(self_scores).all()):
        raise DataError(
            f"The run in {folder} has scores {list(values.shape)} and self-influence "
            f"{list(self_scores.shape)} for {q} queries and {n} training images; expected [{q}, {n}] and "
            f"[{n}], all finite.",
            hint=AGAIN,
        )
    return Scores(values, query_ids, train_ids, self_scores)


def first_queries(queries: Examples, count: int) -> list[int]:
    """The rows of the first queries of every split, equally many where there are enough, in input order."""
    before: Counter[str] = Counter()
    turns = []
    for row, split in enumerate(queries.split or ("",) * len(queries)):
        turns.append((before[split], row))
        before[split] += 1
    return sorted(row for _, row in sorted(turns)[: max(1, count)])


def distinguished(runs: Sequence[Run]) -> list[Run]:
    """Runs with names of their own: those of one name add the fields in which they differ, or else their
    folders."""
    alike = {name: [run for run in runs if run.name == name] for name in {run.name for run in runs}}
    return [
        run if len(alike[run.name]) == 1 else replace(run, name=f"{run.name} ({_mark(run, alike[run.name])})")
        for run in runs
    ]


def _mark(run: Run, alike: Sequence[Run]) -> str:
    """The fields in which this run differs from others of its name, or its folder."""
    fields_of_all = [run.info.get("fields") or {} for run in alike]
    fields = run.info.get("fields") or {}
    differing = [name for name in fields if any(values.get(name) != fields[name] for values in fields_of_all)]
    marks = [", ".join(f"{name} {values.get(name)}" for name in differing) for values in fields_of_all]
    mark = ", ".join(f"{name} {fields[name]}" for name in differing)
    return mark if marks.count(mark) == 1 and len(mark) <= 48 else str(run.folder)


def _kept(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `pictures.npz`, checked: those that a page needs exist, and arrays of one side have one
    length."""
    twins = {"train_images": "train_rows", "train_labels": "train_ids", "query_images": "query_ids"}
    twins |= {f"query_{name}": "query_ids" for name in ("labels", "split", "groups", "prompts")}
    twins |= {f"train_{name}": "train_ids" for name in ("groups", "prompts")}
    have = arrays(path, [*twins, "train_rows", "train_ids", "query_ids"])
    for name, twin in twins.items():
        if twin not in have or (name not in have and name.endswith("images")):
            raise DataError(f"{path} lacks `{name}` or `{twin}`; expected both.", hint=AGAIN)
        if name in have and len(have[name]) != len(have[twin]):
            counts = f"{len(have[name])} `{name}` and {len(have[twin])} `{twin}`"
            raise DataError(f"{path} has {counts}; expected equally many.", hint=AGAIN)
    return {
        name: column.astype(np.int64) if name.endswith("labels") else column for name, column in have.items()
    }


def _queries(have: Mapping[str, np.ndarray], words: Mapping[str, tuple[str, ...]]) -> Examples:
    columns: dict[str, Any] = {name: words.get(f"query_{name}") for name in ("groups", "prompts", "split")}
    return Examples(have["query_images"], words["query_ids"], have.get("query_labels"), **columns)


def _within(rows: Int64[np.ndarray, "*_"], n: int) -> bool:
    return bool((rows >= 0).all() and (rows < n).all())


def _regions(folder: Path, scores: Scores, maps: bool) -> Regions | None:
    """The maps of a run, checked against its queries and training images; `maps`: whether it must have
    some."""
    regions, (q, n) = read_regions(folder / "regions.npz"), scores.values.shape
    if regions is None and maps:
        raise DataError(f"{folder} lacks regions.npz, which its run.json says it has.", hint=AGAIN)
    if regions is not None and not (_within(regions.queries, q) and _within(regions.images, n)):
        raise DataError(f"{folder / 'regions.npz'} is of other pictures than the run.", hint=AGAIN)
    return regions


def check_same(a: Run, b: Run) -> None:
    """Refuse runs side by side that were not made from the same pictures."""
    common = a.pictures.keys() & b.pictures.keys()
    train = a.scores.train_ids == b.scores.train_ids and all(
        np.array_equal(a.pictures[i], b.pictures[i]) for i in common
    )
    query = a.scores.query_ids == b.scores.query_ids and np.array_equal(a.queries.images, b.queries.images)
    shapes = a.scores.values.shape, b.scores.values.shape
    for axis, side, equal, images in ((1, "train", train, "training images"), (0, "query", query, "queries")):
        prints = [(run.info.get(side) or {}).get("fingerprint", "unknown") for run in (a, b)]
        if not equal or (prints[0] != prints[1] and "unknown" not in prints):
            raise DataError(
                f"The run {b.folder} has other {images} than {a.folder}: {shapes[1][axis]:,} (fingerprint "
                f"{prints[1]}) against {shapes[0][axis]:,} (fingerprint {prints[0]}). Expected the same, in "
                "the same order. Report them one by one."
            )


def existing_info(folder: Path) -> dict[str, Any] | None:
    """`run.json` of the run in a folder: None if there is no run, empty if it cannot be read."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}


def holds_run(folder: Path, *, maps: bool) -> bool:
    """Whether the folder has a run's scores, and its maps where it must have them."""
    return (folder / "scores.npy").exists() and ((folder / "regions.npz").exists() or not maps)


def write_run(
    folder: Path,
    train: Examples,
    queries: Examples,
    scores: Scores,
    regions: Regions | None,
    info: Mapping[str, Any],
) -> None:
    """Write the run folder, `run.json` last: a folder without it holds no run."""
    (folder / "run.json").unlink(missing_ok=True)
    write_npy(folder / "scores.npy", scores.values)
    write_npy(folder / "self.npy", scores.self_scores)
    (folder / "regions.npz").unlink(missing_ok=True)
    if regions is not None:
        write_regions(folder / "regions.npz", regions)
    with written(folder / "pictures.npz") as file:
        np.savez_compressed(file, **_pictures(train, queries, scores, regions))
    with written(folder / "run.json", "w") as file:
        json.dump(info, file, indent=1, ensure_ascii=False)


def _pictures(train: Examples, queries: Examples, scores: Scores, regions: Regions | None) -> dict[str, Any]:
    """The pictures that a page needs: all, or for a large training set those that it can show."""
    every, sides = np.arange(len(train)), {"train": train, "query": queries}
    rows = every if train.images.nbytes <= PICTURES else _shown(scores, regions)
    columns = {"train_images": train.images[rows], "train_rows": rows, "query_images": queries.images}
    for name in ("train_labels", "query_labels", *WORDS):
        side, field = name.split("_")
        values = getattr(sides[side], field)
        if values is not None:
            columns[name] = np.array(values)
    return columns


def _shown(scores: Scores, regions: Regions | None) -> Int64[np.ndarray, " _"]:
    """The training images that a page can show, by row."""
    values, self_scores = scores.values, scores.self_scores[None]
    ranked = [values, -values, *([self_scores, -self_scores] if np.isfinite(self_scores).all() else [])]
    parts = [top([block], 50).rows for block in ranked]
    parts += [] if regions is None else [regions.images]
    return np.unique(np.concatenate([part.ravel() for part in parts]))
