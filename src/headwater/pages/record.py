"""A run's record, `run.json`, as a page shows it: it may lack anything, and what it lacks is left out."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from headwater.run import Run

LONG = ("per_query", "each", "resampled")  # lists in a run's ground truth
TABLES = {"Fields": "fields", "Worked out from them": "resolved", "Versions": "versions"}
SIDES = {"Training images": "train", "Pictures": "query"}


class Images(NamedTuple):
    """The images of one side: how many, where they came from, and their fingerprint."""

    title: str
    number: int | None
    source: str
    fingerprint: str


class Model(NamedTuple):
    """A model whose gradients were taken."""

    title: str
    path: str
    parameters: int | None
    fingerprint: str


class ValueTable(NamedTuple):
    """Settings or versions, by name."""

    title: str
    rows: list[tuple[str, str]]


class Record(NamedTuple):
    """Everything that the page says of how a run was made."""

    name: str
    summary: str
    equation: str
    notes: list[str]
    method: str
    images: list[Images]
    models: list[Model]
    device: str
    started: str
    seconds: dict[str, float]
    tables: list[ValueTable]
    json: str


def record_of(run: Run) -> Record:
    """The record of a run."""
    info = run.info
    return Record(
        name=run.name,
        summary=info.get("summary") or "",
        equation=info.get("equation") or "",
        notes=info.get("notes") or [],
        method=info.get("method") or "",
        images=[_images(title, info[key]) for title, key in SIDES.items() if info.get(key)],
        models=_models(info.get("models") or []),
        device=info.get("device") or "",
        started=info.get("started") or "",
        seconds=info.get("seconds") or {},
        tables=_tables(info),
        json=as_json(info),
    )


def as_json(info: Mapping[str, Any]) -> str:
    """A run's whole record without its long lists: the figures of every query and of every resampling."""
    truth = _short(info.get("ground_truth") or {})
    if splits := truth.get("splits"):
        truth["splits"] = {name: _short(split) for name, split in splits.items()}
    return json.dumps({**info, "ground_truth": truth or None}, indent=1, ensure_ascii=False)


def _short(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in LONG}


def _images(title: str, images: Mapping[str, Any]) -> Images:
    number, source = _number(images.get("count")), images.get("source") or ""
    return Images(title, number, source, images.get("fingerprint", ""))


def _models(models: list[Mapping[str, Any]]) -> list[Model]:
    return [
        Model(
            f"Model {i}" if len(models) > 1 else "Model",
            model.get("path") or "",
            _number(model.get("parameters")),
            model.get("fingerprint", ""),
        )
        for i, model in enumerate(models, 1)
    ]


def _tables(info: Mapping[str, Any]) -> list[ValueTable]:
    """The tables that the record has; the first begins with the seed, which is then left out of the rest."""
    seed = _number(info.get("seed"))
    tables = []
    for title, key in TABLES.items():
        if values := info.get(key):
            rows = [] if seed is None or tables else [("seed", str(seed))]
            rows += [(name, _word(value)) for name, value in values.items() if name != "seed" or seed is None]
            tables.append(ValueTable(title, rows))
    return tables


def _word(value: Any) -> str:
    return "none" if value is None else str(value)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
