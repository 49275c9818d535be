"""How often a method credits the studio that a picture was asked of, and finds the concept that was asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from headwater.credit.accuracy import Right, right, wilson
from headwater.credit.shares import by_group
from headwater.examples import Examples
from headwater.scores import top
from studio_emoji import STUDIOS

FIRST = 10  # training images looked at, of the highest score


class Judge(NamedTuple):
    """Who drew what of the training images, and what the queries were asked for: concept and studio."""

    studios: Sequence[str]
    concepts: np.ndarray
    queries: Examples

    @property
    def own(self) -> np.ndarray:
        """The concept of each query."""
        return np.array([each.partition(" ")[2] for each in self.queries.ids])

    def halves(self) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
        """The queries by concept, in two halves that have as many concepts with skin tones."""
        place = {name: i for i, name in enumerate(dict.fromkeys(self.own))}
        odd = np.array([place[name] % 2 for name in self.own])
        return np.flatnonzero(odd == 0), np.flatnonzero(odd == 1)

    def counted(self, values: Float32[np.ndarray, "q n"], rows: Int64[np.ndarray, " _"]) -> Right:
        """How often the larger share is that of the studio asked for."""
        found = right(by_group(values, self.studios), self.queries.groups or (), rows)
        if found is None:
            raise SystemExit("No query has any score above 0.")
        return found

    def crossed(self, each: Float32[np.ndarray, "λ q n"]) -> tuple[Float32[np.ndarray, "q n"], tuple[int, int]]:
        """Each half's scores at the damping that the other half is most often right with; and these dampings' places."""
        one, two = self.halves()
        best = [max(range(len(each)), key=lambda i, rows=rows: self.counted(each[i], rows).right) for rows in (two, one)]
        values = np.empty_like(each[0])
        values[one], values[two] = each[best[0], one], each[best[1], two]
        return values, (best[0], best[1])

    def row(self, values: Float32[np.ndarray, "q n"]) -> dict[str, Any]:
        """The figures of a method: credit, the image of the highest score, and the concept among the first ten."""
        rows, n = np.arange(len(values)), len(self.concepts)
        first = top([values], min(FIRST, n)).rows
        studios, of = np.array(self.studios), np.array(self.queries.groups)
        same = self.concepts[first] == self.own[:, None]
        many = np.array([(self.concepts == name).sum() for name in self.own])
        toned = many > len(STUDIOS)
        found: dict[str, Any] = {"credited": self.counted(values, rows)._asdict()}
        found["leader's studio"] = _rate(studios[first[:, 0]] == of)
        for name, which in (("plain", ~toned), ("toned", toned)):
            if which.any():
                chance = {"chance": float(many[which].mean() / n)}
                found[f"{name} concept leads"] = _rate(same[which, 0]) | chance
                found[f"{name} concept of ten"] = {"rate": float(same[which].mean())} | chance
        return found


def _rate(hits: np.ndarray) -> dict[str, Any]:
    low, high = wilson(int(hits.sum()), len(hits))
    return {"of": len(hits), "rate": float(hits.mean()), "low": low, "high": high}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, in percent with 95 % intervals."""
    lines = [
        "| | credited studio | studio of the leader | concept leads | with skin tones: leads | of ten |",
        "|---|---|---|---|---|---|",
    ]
    names = ("credited", "leader's studio", "plain concept leads", "toned concept leads", "toned concept of ten")
    for row in rows:
        lines.append(f"| {row['row']} | {' | '.join(percent(row.get(name, {})) for name in names)} |")
    return "\n".join(lines)


def percent(each: Mapping[str, Any]) -> str:
    """A rate, with its interval where it has one."""
    if "rate" not in each:
        return "–"
    interval = f" [{100 * each['low']:.0f}, {100 * each['high']:.0f}]" if "low" in each else ""
    return f"{100 * each['rate']:.0f}{interval}"
