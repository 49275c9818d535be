"""The methods in words: equation, fields, and cost, as counted and as measured on the digits bank."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from headwater.diffusion.schedule import linear
from headwater.families.protocol import Costed
from headwater.methods import METHODS, make, method_class, needs_bank, settings_of

MEASURED = Path(__file__).with_suffix(".json")  # written by benchmarks/costs.py


def as_text() -> str:
    """Every method: its name, equation, fields with their defaults, cost."""
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {"methods": {}}
    lines = []
    if measured["methods"]:
        lines = [
            f"Seconds and megabytes are of the bank {measured['bank']}: {measured['images']:,} images, "
            f"{measured['queries']} queries, {measured['parameters']:,} parameters; "
            f"{measured['cores']} cores of {measured['processor']}."
        ]
    for name in METHODS:
        kind = method_class(name)
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        lines += ["", name, f"    {' '.join((kind.__doc__ or '').split(chr(10) * 2)[0].split())}"]
        lines.append("    " + "  ".join(f"{field}={_shown(defaults[field])}" for field in settings_of(kind)))
        lines.append(f"    cost: {passes_in_words(name)}{_measured(measured['methods'].get(name))}")
    return "\n".join(lines)


def passes_in_words(name: str) -> str:
    """A method's passes through models, in words."""
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
