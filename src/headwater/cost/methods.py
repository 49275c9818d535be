"""The methods in words: equation, fields, and what each costs, counted and as measured on the digits bank."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from headwater.diffusion.schedule import linear
from headwater.families.protocol import Costed
from headwater.methods import METHODS, make, method_class, needs_bank, settings_of

MEASURED = Path(__file__).with_suffix(".json")  # of benchmarks/costs.py


def lines() -> list[str]:
    """Every method: its name, equation, fields with their defaults, cost."""
    found = json.loads(MEASURED.read_text()) if MEASURED.exists() else {"methods": {}}
    text = []
    if found["methods"]:
        text = [
            f"Seconds and megabytes are of the bank {found['bank']}: {found['images']:,} images, {found['queries']} queries, "
            f"{found['parameters']:,} parameters; {found['cores']} cores of {found['processor']}."
        ]
    for name in METHODS:
        kind = method_class(name)
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        text += ["", name, f"    {' '.join((kind.__doc__ or '').split(chr(10) * 2)[0].split())}"]
        text.append("    " + "  ".join(f"{field}={_shown(defaults[field])}" for field in settings_of(kind)))
        text.append(f"    cost: {passes(name)}{_measured(found['methods'].get(name))}")
    return text


def passes(name: str) -> str:
    """What a method asks of models, in words."""
    kind = method_class(name)
    if needs_bank(kind):
        return "as many trainings as there are subsets to learn from, then none"
    if name == "clip":
        return "one pass of the embedder a picture"
    method = None if needs_bank(kind) else make(name, {})
    if not isinstance(method, Costed):
        return "no model"
    counts = method.passes(linear().T)
    sides = [(counts.train_forward, "a training image"), (counts.query_forward, "a query")]
    forward = "".join(f", {count} forward passes {side}" for count, side in sides if count)
    return f"{counts.train} gradients a training image, {counts.query} a query{forward}"


def _measured(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"; {row['seconds']:.1f} s, {row['bytes'] / 1e6:.1f} MB"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
