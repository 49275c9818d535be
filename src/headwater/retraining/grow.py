"""A bank that is given more subsets or seeds: room is made in its outcomes, and what is there moves to its new places."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwater.bank import array, outcome_path
from headwater.disk.files import written
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.retraining import ledger
from headwater.retraining.jobs import size_of, subsets_of
from headwater.retraining.recipe import BankRecipe

GROWS = ("subsets", "seeds", "learning", "learning_seeds")  # of a recipe, what a bank may be given more of


def check_grows(folder: Path, there: dict[str, Any], info: dict[str, Any]) -> None:
    """Refuse another recipe or other images, but for more of what a bank may grow by."""
    old, new = (_placeless(each.get("recipe", {})) for each in (there, info))
    changed = [side for side in ("train", "held_out", "base", "prompts") if there.get(side) != info.get(side)]
    changed += [f"recipe ({name})" for name in {**old, **new} if name not in GROWS and old.get(name) != new.get(name)]
    changed += [f"recipe (fewer {name})" for name in GROWS if old.get(name, 0) > new[name]]
    if changed:
        raise OptionError(
            f"The bank {folder} was begun with another {', '.join(changed)}. A bank may be given more of {', '.join(GROWS)}; "
            "nothing else may change. Name a new folder, or delete that one."
        )


def _placeless(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without where the base of its adapters lies, which may change: the base's weights are compared."""
    adapters = recipe.get("adapters")
    return {**recipe} if adapters is None else {**recipe, "adapters": {**adapters, "base": None}}


def grow(
    folder: Path, old: BankRecipe, recipe: BankRecipe, training: Examples, info: dict[str, Any], told: Callable[[str], None]
) -> None:
    """Make room for more subsets and seeds. Those to learn from come after those to compare with, and move up.

    All that changes is written to one file first, from which a growth that was killed is finished.
    """
    before, after = subsets_of(old, training), subsets_of(recipe, training)
    found = ledger.read(folder, size_of(old, array(outcome_path(folder, "simple")).shape[2]), told)
    ledger.collect(folder, found, told)
    rows = [row if row < old.subsets else row + recipe.subsets - old.subsets for row in range(len(before))]
    # To keep clear of more sets to compare with, a set to learn from may have become another: its outcomes are not this one's.
    moved = [to if np.array_equal(before[row], after[to]) else None for row, to in enumerate(rows)]
    arrays = ledger.grown(found, moved, size_of(recipe, 0))
    with written(_growth(folder)) as file:
        np.savez(file, subsets=after, info=np.array(json.dumps(info, indent=1)), **arrays)  # pyright: ignore[reportArgumentType]
    finish_growing(folder)


def finish_growing(folder: Path) -> None:
    """Bring what `grow` wrote to its places; again, if a kill came in between."""
    path = _growth(folder)
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as file:
        everything = {name: file[name] for name in file.files}
    info = str(everything.pop("info"))
    ledger.save(folder / "subsets.npy", everything.pop("subsets"))
    ledger.write(folder, everything)
    with written(folder / "bank.json", "w") as file:
        file.write(info)
    path.unlink()


def _growth(folder: Path) -> Path:
    return folder / "parts" / "growth.npz"
