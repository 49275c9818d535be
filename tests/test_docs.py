"""Every method and every command is documented; the README's commands exist."""

import dataclasses
import re
from pathlib import Path

import pytest
import typer.main

from headwater.cli import commands as cli
from headwater.diffusion.measure import MEASUREMENTS
from headwater.methods import METHODS, method_class

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_its_equation_cost_and_failure(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    for heading in ("## Equation", "## Cost", "## When it fails"):
        assert heading in page
    assert re.search(r"arXiv:\d{4}\.\d{5}|baseline", page)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_begins_its_docstring_with_an_equation(name):
    assert (method_class(name).__doc__ or "").startswith("τ(q, i)")


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_a_method_is_explained_on_a_page(name):
    pages = (ROOT / "docs" / "methods" / f"{name}.md").read_text() + (ROOT / "docs" / "fields.md").read_text()
    for field in dataclasses.fields(method_class(name)):
        assert f"`{field.name}`" in pages, field.name


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_is_explained(name):
    assert f"`{name}`" in (ROOT / "docs" / "fields.md").read_text()


def commands() -> list[str]:
    group = typer.main.get_command(cli.app)
    names = []
    for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        names += [f"{name} {sub}" for sub in command.commands] if hasattr(command, "commands") else [name]
    return names


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name):
    assert f"headwater {name}" in (ROOT / "docs" / "commands.md").read_text()


def test_the_readme_shows_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_the_changelog_has_the_version():
    import headwater

    assert f"## {headwater.__version__}" in (ROOT / "CHANGELOG.md").read_text()
