"""How often a method credits the studio of a query's prompt, and finds the concept in it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from headwater.credit.accuracy import Right, right, wilson
from headwater.credit.shares import by_group
from headwater.examples import Examples
from headwater.scores import top
from papers.studios.emoji import STUDIOS

FIRST = 10  # training images of the highest score


class Judge(NamedTuple):
    """Studios and concepts of the training images, and the queries, whose prompts name one of each."""

    studios: Sequence[str]
    concepts: np.ndarray
    queries: Examples

    @property
    def own(self) -> np.ndarray:
        """The concept of each query."""
        return np.array([name.partition(" ")[2] for name in self.queries.ids])

    def halves(self) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
        """The queries by concept, in two halves with equally many concepts with skin tones."""
        place = {name: i for i, name in enumerate(dict.fromkeys(self.own))}
        odd = np.array([place[name] % 2 for name in self.own])
        return np.flatnonzero(odd == 0), np.flatnonzero(odd == 1)

    def counted(self, values: Float32[np.ndarray, "q n"], rows: Int64[np.ndarray, " _"]) -> Right:
        """How often the larger share is that of the prompt's studio."""
        accuracy = right(by_group(values, self.studios), self.queries.groups or (), rows)
        if accuracy is None:
            raise SystemExit("No query has any score above 0.")
        return accuracy

    def crossed(
        self, scores: Float32[np.ndarray, "λ q n"]
    ) -> tuple[Float32[np.ndarray, "q n"], tuple[int, int]]:
        """Each half's scores at the damping with which the other half is most often right, and its places."""
        one, two = self.halves()

        def best(rows: Int64[np.ndarray, " _"]) -> int:
            return max(range(len(scores)), key=lambda i: self.counted(scores[i], rows).right)

        first, second = best(two), best(one)
        values = np.empty_like(scores[0])
        values[one], values[two] = scores[first, one], scores[second, two]
        return values, (first, second)

    def row(self, values: Float32[np.ndarray, "q n"]) -> dict[str, Any]:
        """A method's figures: credit, the image of the highest score, the concept among the first ten."""
        rows, n = np.arange(len(values)), len(self.concepts)
        first = top([values], min(FIRST, n)).rows
        studios, of = np.array(self.studios), np.array(self.queries.groups)
        equal = self.concepts[first] == self.own[:, None]
        drawn = np.array(
            [(self.concepts == name).sum() for name in self.own]
        )  # how often both studios together drew it
        toned = drawn > len(STUDIOS)
        row: dict[str, Any] = {"credited": self.counted(values, rows)._asdict()}
        row["leader's studio"] = _rate(studios[first[:, 0]] == of)
        for name, mask in (("plain", ~toned), ("toned", toned)):
            if mask.any():
                chance = {"chance": float(drawn[mask].mean() / n)}
                row[f"{name} concept leads"] = _rate(equal[mask, 0]) | chance
                row[f"{name} concept of ten"] = {"rate": float(equal[mask].mean())} | chance
        return row


def _rate(hits: np.ndarray) -> dict[str, Any]:
    low, high = wilson(int(hits.sum()), len(hits))
    return {"of": len(hits), "rate": float(hits.mean()), "low": low, "high": high}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, in percent with 95 % intervals."""
    lines = [
        "| | credited studio | studio of the leader | concept leads | with skin tones: leads | of ten |",
        "|---|---|---|---|---|---|",
    ]
    names = (
        "credited",
        "leader's studio",
        "plain concept leads",
        "toned concept leads",
        "toned concept of ten",
    )
    for row in rows:
        lines.append(f"| {row['row']} | {' | '.join(percent(row.get(name, {})) for name in names)} |")
    return "\n".join(lines)


def percent(figure: Mapping[str, Any]) -> str:
    """A rate, with its interval where it has one."""
    if "rate" not in figure:
        return "–"
    interval = f" [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]" if "low" in figure else ""
    return f"{100 * figure['rate']:.0f}{interval}"
