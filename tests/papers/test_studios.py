"""The two studios' example in small: everything runs, is kept, and is counted right."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.methods import make
from headwater.scores import dense
from papers.studios.base import FULL, Base
from papers.studios.emoji import concepts, emoji, query_concepts
from papers.studios.judge import Judge
from papers.studios.study import PLAIN, TRAINING, Study, page, study

DATA = Path(os.environ.get("HEADWATER_DATA") or Path(__file__).parents[3] / "shared" / "data")
WEIGHTS = DATA.parent / "weights"
needs_data = pytest.mark.skipif(
    not (DATA / "emoji_google_64.npz").exists(), reason="no research data beside the checkout: emoji"
)


@needs_data
def test_the_example_in_small(tmp_path, monkeypatch):
    """From two folders of files to the page; a second call computes nothing again and says the same."""
    monkeypatch.setenv("HEADWATER_DATA", str(DATA))  # where CIFAR-10 is looked for
    base = Base(
        channels=(16, 32),
        text=16,
        photographs=24,
        tiles=8,
        recipe=replace(FULL, steps=3, batch=8, checkpoints=1),
    )
    training = replace(TRAINING, steps=4, batch=8)
    small = Study(
        base=base,
        rank=2,
        training=training,
        images=(430, 490),
        concepts=4,
        sampling=replace(PLAIN, steps=3),
        timesteps=2,
        k=64,
    )
    rows = list(study(small, DATA, WEIGHTS, tmp_path))
    again = list(study(small, DATA, WEIGHTS, tmp_path))
    assert rows == again and [row["row"] for row in rows] == [line.row for line in small.lines()]
    for row in rows:
        assert (
            row["credited"]["pictures"] == 8
            and 0 <= row["credited"]["low"] <= row["credited"]["rate"] <= row["credited"]["high"]
        )
        assert row["credited"]["even"] == 0.5
    page(small, rows, tmp_path / "page")
    assert (tmp_path / "page" / "README.md").read_text().count("\n| `") == len(rows)


@needs_data
def test_a_training_image_as_a_query_is_its_studios_and_its_concepts(tmp_path):
    """What every method must find: with distinct pictures, pixels name studio and concept of all of them."""
    train = emoji(DATA, (0, 150))
    _, first = np.unique(np.array(train.hashes), return_index=True)
    train = train.take(np.sort(first))
    queries = replace(train.take(range(0, len(train), 7)), ids=tuple(f"{g} {c}" for g, c in _names(train, 7)))
    method = make("optimal-score", {"timesteps": (1,), "noises": 0})
    store = FeatureStore(tmp_path)
    values = dense(method.score(method.fit(None, train, store), queries, store))
    row = Judge(train.groups, concepts(train), queries).row(values)
    assert row["credited"]["rate"] == row["leader's studio"]["rate"] == 1.0
    assert row["plain concept leads"]["rate"] == 1.0


def _names(train, step):
    return [(train.groups[i], concepts(train)[i]) for i in range(0, len(train), step)]


@needs_data
def test_half_of_the_query_concepts_have_skin_tones():
    train = emoji(DATA)
    names, counts = np.unique(concepts(train), return_counts=True)
    drawn = dict(zip(names.tolist(), counts.tolist(), strict=True))
    names = query_concepts(train, 64)
    assert len(set(names)) == 64 and sum(drawn[name] > 2 for name in names) == 32


def test_a_damping_is_chosen_on_the_other_half():
    """Two dampings, each right on one half alone: crossed, neither helps where it is counted."""
    studios = ("google", "twitter")
    pictures = np.zeros((4, 1, 1, 1), np.uint8)
    queries = Examples(pictures, ids=tuple(f"google {name}" for name in "abcd"), groups=("google",) * 4)
    judge = Judge(studios, np.array(["a", "b"]), queries)
    good, bad = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    scores = np.array([[good, bad, good, bad], [bad, good, bad, good]], np.float32)
    values, best = judge.crossed(scores)
    assert best == (1, 0)
    assert judge.counted(values, np.arange(4)).rate == 0.0
