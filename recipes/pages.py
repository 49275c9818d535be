"""Rows as a page of Markdown: the table as the paper has it, paired differences, and every row with all there is to know of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from headwater.bank import Bank
from headwater.disk.files import written

Row = dict[str, Any]

RESULTS = Path(__file__).parent.parent / "docs" / "results"
INDEX = """# Results

The tables and figures of three papers on banks of our own: other data, other models, far fewer pixels. So what can be compared with
the paper is which method is ahead, not by how many points. `make results` makes them for the digits bank, `recipes/all.py --bank
BANK` for another, `recipes/table_1.py` one of them; what is finished is not measured again.

Settings are chosen on one half of a split's queries and reported on the other; what was not chosen so is called an oracle. Every
table has random scores and, on a bank of several seeds, what one retraining says of another. LDS compares within one bank only."""
PAPERS = (
    "## D-TRAK (Zheng et al. 2023, arXiv:2311.00500)",
    "## Influence functions with K-FAC (Mlodozieniec et al. 2025, arXiv:2410.13850)",
    "## NDA (Zhao et al. 2025, arXiv:2510.14269)",
)

SPLITS = {"val": "validation", "gen": "generation", "all": "all queries"}


def write(recipe: ModuleType, rows: Sequence[Row], bank: Bank, folder: Path) -> None:
    """The recipe's page in `folder`, and its figure beside it."""
    name, word = recipe.__name__, getattr(recipe, "COLUMNS", "")
    title, caption = title_and_caption(recipe)
    if hasattr(recipe, "draw"):
        import drawing

        drawing.save(recipe.draw(rows), folder / f"{name}.svg", title)
        shown = [f"![{title}]({name}.svg)"]
    else:
        shown = [table(rows, word), *differences(rows, word)]
        if folder == RESULTS / bank.folder.name and bank.folder.name in getattr(recipe, "PAGES", {}):
            embed(RESULTS.parent.parent / recipe.PAGES[bank.folder.name], [shown[0], ground(bank, rows)])
    made = f"Made by `recipes/{name}.py`; the same in numbers: [{name}.json]({name}.json)."
    save(folder / f"{name}.md", [f"# {title}", caption, ground(bank, rows), *shown, every_row(rows), made])


def embed(page: Path, paragraphs: Sequence[str]) -> None:
    """Put a table where the page has the marks of one."""
    before, _, rest = page.read_text().partition("<!-- table -->")
    after = rest.partition("<!-- /table -->")[2]
    with written(page, "w") as file:
        file.write("\n".join([f"{before}<!-- table -->", "\n\n".join(paragraphs), f"<!-- /table -->{after}"]))


def index(papers: Sequence[Sequence[ModuleType]], results: Path) -> None:
    """All results, paper by paper."""
    parts = [part for title, recipes in zip(PAPERS, papers, strict=True) for part in (title, findings(recipes, results))]
    save(results / "README.md", [INDEX, *parts])


def findings(recipes: Sequence[ModuleType], results: Path) -> str:
    """What a paper found, whether it was found here, and the pages of every bank."""
    banks = sorted(folder.name for folder in results.glob("*/") if any(folder.glob("*.md")))
    lines = [["", "the paper", "here", "pages"]]
    for recipe in recipes:
        name, (title, _) = recipe.__name__, title_and_caption(recipe)
        here = "<br>".join(f"`{bank}`: {words}" for bank, words in getattr(recipe, "HERE", {}).items())
        links = " ".join(f"[{bank}]({bank}/{name}.md)" for bank in banks if (results / bank / f"{name}.md").exists())
        lines.append([title, recipe.PAPER, here, links])
    used = [i for i, column in enumerate(zip(*lines[1:], strict=True)) if any(column)]  # nothing is said of what is not measured
    text = [f"| {' | '.join(line[i] for i in used)} |" for line in lines]
    return "\n".join([text[0], "|---" * len(used) + "|", *text[1:]])


def title_and_caption(recipe: ModuleType) -> tuple[str, str]:
    """The first line of a recipe's docstring, and the rest."""
    title, _, caption = (recipe.__doc__ or "").strip().partition("\n\n")
    return title, caption


def save(path: Path, paragraphs: Sequence[str]) -> None:
    """Write a page."""
    with written(path, "w") as file:
        file.write("\n\n".join(paragraphs) + "\n")


def ground(bank: Bank, rows: Sequence[Row]) -> str:
    """What the figures were measured on."""
    split = bank.queries.split or ("all",) * len(bank.queries)
    queries = " and ".join(f"{split.count(name)} of {SPLITS.get(name, name)}" for name in dict.fromkeys(split))
    first = rows[0]
    seeds = f"{first['seeds']} seed{'s' * (first['seeds'] > 1)}"
    return (
        f"Bank `{bank.folder.name}`: {len(bank.train):,} training images; {queries} as queries; models retrained on "
        f"{first['subsets']} of {bank.compared} subsets × {seeds}. LDS in percent with 95 % intervals over subsets."
    )


def table(rows: Sequence[Row], word: str = "", *, of: str = "") -> str:
    """Lines across, splits and columns down: LDS, or with `of` that difference. A line without columns stands in the first."""
    columns = sorted(dict.fromkeys(row["column"] for row in rows if row["column"]), key=_number) or [""]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    heads = [f"{SPLITS.get(split, split)}<br>{column} {word}".rstrip() for split in splits for column in columns]
    timed = any("seconds_from_empty_store" in row for row in rows) and not of
    text = ["| | " + " | ".join([*heads, *(["seconds"] if timed else [])]) + " |", "|---" * (len(heads) + 1 + timed) + "|"]
    for name in dict.fromkeys(row["row"] for row in rows):
        mine = {(row["split"], row["column"] or columns[0]): row for row in rows if row["row"] == name}
        cells = [_cell(mine.get((split, column)), of) for split in splits for column in columns]
        if timed:
            alone = {row["column"]: row.get("seconds_from_empty_store") for row in mine.values()}
            cells.append(" / ".join(f"{seconds:.0f}" for _, seconds in sorted(alone.items()) if seconds is not None) or "–")
        text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def differences(rows: Sequence[Row], word: str = "") -> Iterator[str]:
    """Paired differences to the line that others are compared with, if there is one."""
    paired = [row for row in rows if row["minus"]]
    if paired:
        names = " or ".join(dict.fromkeys(row["minus"]["row"] for row in paired))
        yield f"Minus {names}, paired over the same resamples of the subsets:"
        yield table([row for row in paired if row["row"] != row["minus"]["row"]], word, of="minus")


def every_row(rows: Sequence[Row]) -> str:
    """All rows with their settings, folded away."""
    bases = " or ".join(dict.fromkeys(row["minus"]["row"] for row in rows if row["minus"]))
    heads = ["", "", "split", "LDS", *([f"minus {bases}, paired"] if bases else [])]
    heads += ["chosen for each half", "oracle", "seconds", "features computed"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        oracle = max(row["all"], key=lambda each: each["lds"]) if row["all"] else None
        told = "" if oracle is None else f"{_words(oracle['setting'])}: {100 * oracle['lds']:.1f}"
        chosen = "; ".join(dict.fromkeys(_words(each) for each in row["chosen"]))
        at = row["column"] if row["x"] is None else f"{row['column']} {row['x']:g}"
        minus = [_cell(row, "minus") if row["minus"] else ""] if bases else []
        cost = [f"{row['seconds']:.1f}", f"{row['features_computed']:,}"]
        lines.append(f"| {' | '.join([row['row'], at, row['split'], _cell(row), *minus, chosen, told, *cost])} |")
    note = (
        "Chosen: what each half of the queries is scored with, which the other half prefers. Oracle: the best on the very queries "
        "that it is measured on, so too high. Seconds are with the features that were in the store; so many were computed."
    )
    return f"<details><summary>Every row</summary>\n\n{note}\n\n" + "\n".join(lines) + "\n\n</details>"


def _cell(row: Row | None, of: str = "") -> str:
    """A figure with its interval in percent; a difference with its sign."""
    if row is None:
        return "–"
    mean, low, high = (row[of]["mean"], row[of]["low"], row[of]["high"]) if of else (row["lds"], row["low"], row["high"])
    sign = "+" if of else ""
    return f"{100 * mean:{sign}z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"


def _words(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in setting.items())


def _number(column: str) -> float:
    """The number that a column is, if it is one: numbers go in order, words as they come."""
    return float(column) if column.isdigit() else float("inf")
