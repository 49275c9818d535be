"""Draw docs/architecture.svg: the package's rooms and nouns in the order of its layers contract.

Run: python docs/architecture.py [--check]. The order is read from pyproject.toml, the sentence of a room from
its docstring. `--check` writes nothing and fails where the picture is out of date."""

import ast
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "headwater"
PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, HEIGHT, GAP = 1000, 64, 14

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" font-family="sans-serif"
     role="img">
<title>The rooms of headwater: each imports only those below it</title>
<style>
rect { fill: #f4f1ea; stroke: #8a8170; rx: 6 } .noun rect { fill: #e6eef2; stroke: #5d7f8e }
.name { font-size: 15px; font-weight: 600; fill: #26221b }
.doc { font-size: 11.5px; fill: #46402f }
</style>
{%- for box in boxes %}
<g class="{{ 'noun' if box.noun else 'craft' }}">
<rect x="{{ box.x }}" y="{{ box.y }}" width="{{ box.width }}" height="{{ box_height }}"/>
<text class="name" x="{{ box.x + 12 }}" y="{{ box.y + 21 }}">{{ box.name }}</text>
{%- for line in box.lines %}
<text class="doc" x="{{ box.x + 12 }}" y="{{ box.y + 39 + 15 * loop.index0 }}">{{ line }}</text>
{%- endfor %}
</g>
{%- endfor %}
</svg>
"""


class Box(NamedTuple):
    """A room or noun as it is drawn."""

    name: str
    noun: bool
    lines: Sequence[str]
    x: int
    y: int
    width: int


def layers() -> list[list[str]]:
    """The names in every layer, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in contract["layers"]]


def sentence(name: str) -> str:
    """The first sentence of a room's or noun's docstring."""
    folder = PACKAGE / name
    text = ast.get_docstring(
        ast.parse((folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py").read_text())
    )
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()), maxsplit=1)[0].replace("`", "")


def wrapped(text: str, columns: int, rows: int = 2) -> list[str]:
    """The text in at most `rows` lines of `columns` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > columns:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [
        *lines[: rows - 1],
        *([lines[rows - 1] + " …" * (len(lines) > rows)] if len(lines) >= rows else []),
    ]


def boxes(rows: Sequence[Sequence[str]]) -> list[Box]:
    """A box for every name, layer by layer."""
    drawn = []
    for row, names in enumerate(rows):
        width = (WIDTH - GAP * (len(names) + 1)) // len(names)
        for column, name in enumerate(names):
            noun = not (PACKAGE / name).is_dir()
            x, y = GAP + column * (width + GAP), GAP + row * (HEIGHT + GAP)
            drawn.append(Box(name, noun, wrapped(sentence(name), width // 7), x, y, width))
    return drawn


def picture(rows: Sequence[Sequence[str]]) -> str:
    """The drawing as SVG."""
    values: Mapping[str, object] = {
        "boxes": boxes(rows),
        "width": WIDTH,
        "height": GAP + len(rows) * (HEIGHT + GAP),
        "box_height": HEIGHT,
    }
    return (
        jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(SVG).render(values)
        + "\n"
    )


def main() -> None:
    """Write the picture, or with `--check` compare it with the one that is there."""
    drawing = picture(layers())
    if "--check" not in sys.argv:
        PICTURE.write_text(drawing, encoding="utf-8")
        print(PICTURE.relative_to(ROOT))
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != drawing:
        sys.exit("docs/architecture.svg is out of date. Draw it again: make architecture")


if __name__ == "__main__":
    main()
