"""Growing a bank: room for more subsets or seeds, and existing outcomes in their new places."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwater.bank import write_info, write_subsets
from headwater.disk.files import written
from headwater.disk.npy import read_npy
from headwater.disk.outcomes import enlarged, outcome_path, recover_outcomes, write_outcomes
from headwater.errors import OptionError, Warn
from headwater.examples import Examples
from headwater.retraining import ledger
from headwater.retraining.jobs import outcome_shape, subsets_of
from headwater.retraining.recipe import BankRecipe

GROWS = ("subsets", "seeds", "learning", "learning_seeds")  # the fields of a recipe that may be raised later


def check_grows(folder: Path, existing: dict[str, Any], info: dict[str, Any]) -> None:
    """Raise an OptionError where the recipe or images differ from the existing bank's, except by growth."""
    old, new = (_placeless(side.get("recipe", {})) for side in (existing, info))
    changed = [
        side for side in ("train", "held_out", "base", "prompts") if existing.get(side) != info.get(side)
    ]
    changed += [
        f"recipe ({name})" for name in {**old, **new} if name not in GROWS and old.get(name) != new.get(name)
    ]
    changed += [f"recipe (fewer {name})" for name in GROWS if old.get(name, 0) > new[name]]
    if changed:
        raise OptionError(
            f"The bank {folder} was begun with another {', '.join(changed)}. A bank may be given more of "
            f"{', '.join(GROWS)}; nothing else may change. Name a new folder, or delete that one."
        )


def _placeless(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without the place of the adapters' base, which may change; its weights may not."""
    adapters = recipe.get("adapters")
    return {**recipe} if adapters is None else {**recipe, "adapters": {**adapters, "base": None}}


def grow(
    folder: Path, old: BankRecipe, recipe: BankRecipe, training: Examples, info: dict[str, Any], warn: Warn
) -> None:
    """Make room for more subsets and seeds; subsets to learn from move behind those to compare with.

    All that changes is written to one file first, from which a growth that was killed is finished.
    """
    before, after = subsets_of(old, training), subsets_of(recipe, training)
    queries = read_npy(outcome_path(folder, "simple")).shape[2]
    outcomes = recover_outcomes(folder, outcome_shape(old, queries), warn)
    ledger.collect(folder, outcomes, warn)
    rows = [row if row < old.subsets else row + recipe.subsets - old.subsets for row in range(len(before))]
    # A subset to learn from that the new subsets to compare with have displaced loses its outcomes.
    moved = [
        row if np.array_equal(subset, after[row]) else None for subset, row in zip(before, rows, strict=True)
    ]
    larger = enlarged(outcomes, moved, outcome_shape(recipe, 0))
    with written(_growth(folder)) as file:
        np.savez(file, subsets=after, info=np.array(json.dumps(info)), **larger)  # pyright: ignore[reportArgumentType]
    finish_growing(folder)


def finish_growing(folder: Path) -> None:
    """Bring what `grow` wrote to its places; again, if a kill came in between."""
    path = _growth(folder)
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    info = json.loads(str(arrays.pop("info")))
    write_subsets(folder, arrays.pop("subsets"))
    write_outcomes(folder, arrays)
    write_info(folder, info)
    path.unlink()


def _growth(folder: Path) -> Path:
    return folder / "parts" / "growth.npz"
