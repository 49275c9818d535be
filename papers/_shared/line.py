"""A line: a method at one setting of its fields, the unit that is measured."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headwater.diffusion.draws import without_own
from headwater.families.protocol import Embedding
from headwater.methods import field_values, make

DAMPINGS = [a * 10.0**b for b in range(-4, 2) for a in (1, 2, 5)]
REFERENCES = {"random": "`random`", "ceiling": "*one seed predicting the other*"}
# The name of an embedder in recorded rows, which were measured before its module moved.
RECORDED = {"papers.efficientnet:EMBEDDER": "efficientnet:EMBEDDER"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method at one setting of its fields: one place in a table, or the point `x` of a curve.

    The best values of `swept` fields are chosen by cross-fitting; with `each`, every value is a point of its
    own. `model`: a folder of the bank; with `ensemble`, that many models of learning subsets instead.
    `against`: the outcome that the scores should predict. `dtype`: that of the features in the store, if not
    float32.
    """

    row: str
    column: str = ""
    x: float | None = None
    method: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    swept: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    each: bool = False
    model: str = "model"
    ensemble: int | None = None
    against: str = "simple"
    dtype: str | None = None

    @property
    def name(self) -> str:
        """Its name where other lines are compared with it."""
        return self.row if self.x is None else f"{self.row} = {self.x:g}"

    @property
    def place(self) -> dict[str, Any]:
        """Where its figures stand in the table or on the curve."""
        return {"row": self.row, "column": self.column, "x": self.x}

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its figures, except the bank."""
        settings = {name: value for name, value in asdict(self).items() if name not in self.place}
        if self.dtype is None:
            del settings["dtype"]
        if self.method not in REFERENCES:
            settings["fields"] = _fields(make(self.method, dict(self.fields)))
        return json.loads(json.dumps(settings))


def _fields(method: Any) -> dict[str, Any]:
    """The method's fields as they are recorded, with the embedder's fingerprint if it has one."""
    fields = without_own(field_values(method))
    if not isinstance(method, Embedding):
        return fields
    embedder = RECORDED.get(fields["embedder"], fields["embedder"])
    return fields | {"embedder": embedder, "fingerprint": method.fingerprint}


def influence(
    method: str, timesteps: int, swept: Mapping[str, Sequence[Any]] | None = None, **fields: Any
) -> dict[str, Any]:
    """A line's method and fields for an influence function, with the paper's λ = 1e-8 unless `swept`."""
    return {"method": method, "fields": {"timesteps": timesteps, **fields}, "swept": swept or {}}


def kernel(
    method: str, timesteps: int, swept: Mapping[str, Sequence[Any]] | None = None, **fields: Any
) -> dict[str, Any]:
    """A line's method and fields for a kernel method: unless `swept` is given, the damping is swept."""
    return {
        "method": method,
        "fields": {"timesteps": timesteps, **fields},
        "swept": swept or {"damping": DAMPINGS},
    }


def key_of(line: Line, base: Line | None = None) -> str:
    """A hash of all that decides a line's rows, except the bank."""
    settings = [line.settings, None if base is None else base.settings]
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
