"""Copies of data sets under the folder that `$HEADWATER_DATA` names."""

import os
from pathlib import Path

from headwater.disk.files import expanded


def local(name: str) -> Path | None:
    """The file or folder `name` under `$HEADWATER_DATA`; None where there is none."""
    folder = os.environ.get("HEADWATER_DATA")
    path = expanded(folder) / name if folder else None
    return path if path and path.exists() else None


def remedy(*names: str) -> str:
    """The sentence of an error that says where `names` are expected."""
    folder = os.environ.get("HEADWATER_DATA") or "not set"
    contents = " or ".join(names)
    return (
        f"HEADWATER_DATA is {folder}: name a folder that has {contents} (docs/data.md says where to get it)."
    )
