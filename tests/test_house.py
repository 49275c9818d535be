"""The laws of the house: few doors at the top, names that say what they hold, one meaning a public name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater

PACKAGE = Path(headwater.__file__).parent
ROOT = Path(__file__).parents[1]
WORDS = """each found what told kept made there here so it those these this that other others given them they
same some all whole such mine theirs own done seen shown asked wanted left more less"""
PRONOUNS = frozenset(WORDS.split())
# a command is named like the function that it calls
COMMANDS = {
    "attribute",
    "demo",
    "lds",
    "report",
    "sample",
    "train",
}
ENGINES = {"gradients"}  # two engines behind one signature
TEXTS = {"as_text"}  # a record in words


def trees(folder: Path = PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder), ast.parse(path.read_text(encoding="utf-8"))


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Parameters, assigned names and loop variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def names_and_pronouns(folder: Path) -> tuple[int, list[str]]:
    """The number of names in a folder, and those that are pronouns."""
    names = [(path, name) for path, tree in trees(folder) for name in bound_names(tree)]
    return len(names), [f"{path}: {name}" for path, name in names if name.lstrip("_") in PRONOUNS]


def test_names_are_nouns_and_not_pronouns():
    count, pronouns = names_and_pronouns(PACKAGE)
    assert len(pronouns) <= 0.005 * count, pronouns


@pytest.mark.parametrize("folder", ["benchmarks", "papers", "docs", "examples"])
def test_names_in_scripts_are_nouns_too(folder):
    count, pronouns = names_and_pronouns(ROOT / folder)
    assert count and len(pronouns) <= 0.015 * count, pronouns


def test_a_public_name_has_one_meaning():
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].append(str(path))
    doubles = {name: files for name, files in places.items() if len(files) > 1}
    assert doubles.keys() <= COMMANDS | ENGINES | TEXTS, doubles


def test_the_top_of_the_package_has_few_doors():
    doors = {path.name for path in PACKAGE.iterdir()} - {"banks", "py.typed", "__pycache__"}
    assert len(doors) <= 26, sorted(doors)


def test_the_public_names_are_listed_and_each_can_be_had():
    assert dir(headwater) == sorted(headwater.__all__)
    assert all(getattr(headwater, name) is getattr(headwater, name) for name in headwater.__all__)
