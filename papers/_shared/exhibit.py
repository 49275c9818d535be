"""An exhibit: a table or a figure of a paper, one module of `papers`.

Its docstring is the title and the caption, and `PAPER` is what the paper found. `lines(session)` says what is
measured. It may have

* `base(line)`: the line that another is compared with, in pairs;
* `draw(rows)`: its figure, in place of the table;
* `COLUMNS`: the word for its columns;
* `HERE`: what was found on each bank, in words;
* `PAGES`: for each bank, another page that shows its table too.

An exhibit that is not made of lines has `page(session, exhibit)` instead, which writes its page.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headwater.disk.files import written
from papers._shared.line import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Exhibit:
    """The module `papers.PAPER.NAME`, imported when it is needed."""

    paper: str
    name: str

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"papers.{self.paper}.{self.name}")

    @property
    def stem(self) -> str:
        """The name of its files, for example `table_1` or `kfac_figure_1`: D-TRAK's have no prefix."""
        return self.name if self.paper == "dtrak" else f"{self.paper}_{self.name}"

    @property
    def title(self) -> str:
        """The first paragraph of the module's docstring, on one line."""
        return self._docstring[0]

    @property
    def caption(self) -> str:
        """The rest of the module's docstring."""
        return self._docstring[1]

    @property
    def _docstring(self) -> tuple[str, str]:
        title, _, caption = (self.module.__doc__ or "").strip().partition("\n\n")
        return " ".join(title.split()), caption

    @property
    def column_word(self) -> str:
        """The word for its columns."""
        return getattr(self.module, "COLUMNS", "")

    @property
    def findings(self) -> Mapping[str, str]:
        """What was found on each bank."""
        return getattr(self.module, "HERE", {})

    @property
    def other_pages(self) -> Mapping[str, str]:
        """For each bank, another page that shows the table."""
        return getattr(self.module, "PAGES", {})

    @property
    def origin(self) -> str:
        """The beginning of a page's last sentence."""
        return f"Made by `papers/{self.paper}/{self.name}.py`"

    def base(self, line: Line) -> Line | None:
        """The other line that this one is compared with, if there is one."""
        base = self.module.base(line) if hasattr(self.module, "base") else None
        return None if base == line else base

    def save_figure(self, figure: "Figure", folder: Path) -> str:
        """Write the figure into `folder`; return the paragraph of Markdown that shows it."""
        from papers._shared import drawing

        drawing.save(figure, folder / f"{self.stem}.svg", self.title)
        return f"![{self.title}]({self.stem}.svg)"

    def save_page(self, folder: Path, paragraphs: Sequence[str], caption: str | None = None) -> None:
        """Write the page into `folder`: title, caption (the module's, unless given) and paragraphs."""
        save_paragraphs(folder / f"{self.stem}.md", [f"# {self.title}", caption or self.caption, *paragraphs])


def save_paragraphs(path: Path, paragraphs: Sequence[str]) -> None:
    """Write a page of Markdown."""
    with written(path, "w") as file:
        file.write("\n\n".join(paragraphs) + "\n")


def _of(paper: str, **numbers: Sequence[Any]) -> tuple[Exhibit, ...]:
    """Exhibits of a paper by number, for example `table=(1, 2)`."""
    return tuple(Exhibit(paper, f"{kind}_{number}") for kind in numbers for number in numbers[kind])


D_TRAK = _of("dtrak", table=(1, 2, 4, 5, 7), figure=(1, 2, 5, 6, 9, 10, 15, 20))
K_FAC = (*_of("kfac", figure=(1, 2, 3, 4, 6, 7, 11, 13, 15, 16, 17, 18)), Exhibit("kfac", "refined"))
NDA = _of("nda", table=(1,), figure=(5, 6, 7, 8))
PAPERS = {
    "D-TRAK (Zheng et al. 2023, arXiv:2311.00500)": D_TRAK,
    "Influence functions with K-FAC (Mlodozieniec et al. 2025, arXiv:2410.13850)": K_FAC,
    "NDA (Zhao et al. 2025, arXiv:2510.14269)": NDA,
}
EXHIBITS = (*D_TRAK, *K_FAC, *NDA)
