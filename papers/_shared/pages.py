"""Rows as a page of Markdown: the paper's table, paired differences, and every row with its settings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.bank import Bank
from headwater.disk.files import written
from papers._shared.exhibit import Exhibit, save_paragraphs
from papers._shared.keeping import RESULTS, ROOT, SPLITS, Row

INDEX = """# Results

The tables and figures of three papers on banks of our own: other data, other models, far fewer pixels. So
what can be compared with the paper is which method is ahead, not by how many points. `make results` makes
them for the digits bank, `python -m papers.all --bank BANK` for another, `python -m papers.dtrak.table_1` one
of them; what is finished is not measured again.

Settings are chosen on one half of a split's queries and reported on the other; what was not chosen so is
called an oracle. Every table has random scores and, on a bank of several seeds, what one retraining says of
another. LDS compares within one bank only."""


def write(exhibit: Exhibit, rows: Sequence[Row], bank: Bank, folder: Path) -> None:
    """The exhibit's page in `folder`, and its figure beside it."""
    word = exhibit.column_word
    if hasattr(exhibit.module, "draw"):
        parts = [exhibit.save_figure(exhibit.module.draw(rows), folder)]
    else:
        parts = [table(rows, word), *differences(rows, word)]
        if folder == RESULTS / bank.folder.name and bank.folder.name in exhibit.other_pages:
            embed(ROOT / exhibit.other_pages[bank.folder.name], [parts[0], ground(bank, rows)])
    origin = f"{exhibit.origin}; the same in numbers: [{exhibit.stem}.json]({exhibit.stem}.json)."
    exhibit.save_page(folder, [ground(bank, rows), *parts, every_row(rows), origin])


def embed(page: Path, paragraphs: Sequence[str]) -> None:
    """Put a table between the marks for one on the page."""
    before, _, rest = page.read_text().partition("<!-- table -->")
    after = rest.partition("<!-- /table -->")[2]
    with written(page, "w") as file:
        file.write("\n".join([f"{before}<!-- table -->", "\n\n".join(paragraphs), f"<!-- /table -->{after}"]))


def write_index(papers: Mapping[str, Sequence[Exhibit]], results: Path) -> None:
    """All results, paper by paper."""
    parts = [
        part for title, exhibits in papers.items() for part in (f"## {title}", findings(exhibits, results))
    ]
    save_paragraphs(results / "README.md", [INDEX, *parts])


def findings(exhibits: Sequence[Exhibit], results: Path) -> str:
    """A table: for each exhibit the paper's finding, the finding on our banks, and every bank's page."""
    banks = sorted(folder.name for folder in results.glob("*/") if any(folder.glob("*.md")))
    lines = [["", "the paper", "here", "pages"]]
    for exhibit in exhibits:
        page = f"{exhibit.stem}.md"
        outcomes = "<br>".join(f"`{bank}`: {words}" for bank, words in exhibit.findings.items())
        links = " ".join(f"[{bank}]({bank}/{page})" for bank in banks if (results / bank / page).exists())
        lines.append([exhibit.title, exhibit.module.PAPER, outcomes, links])
    used = [
        i for i, column in enumerate(zip(*lines[1:], strict=True)) if any(column)
    ]  # empty columns are left out
    text = [f"| {' | '.join(line[i] for i in used)} |" for line in lines]
    return "\n".join([text[0], "|---" * len(used) + "|", *text[1:]])


def ground(bank: Bank, rows: Sequence[Row]) -> str:
    """The bank, the queries and the models that the figures were measured on."""
    split = bank.queries.split or ("all",) * len(bank.queries)
    queries = " and ".join(
        f"{split.count(name)} of {SPLITS.get(name, name)}" for name in dict.fromkeys(split)
    )
    first = rows[0]
    seeds = f"{first['seeds']} seed{'s' * (first['seeds'] > 1)}"
    return (
        f"Bank `{bank.folder.name}`: {len(bank.train):,} training images; {queries} as queries; "
        f"models retrained on {first['subsets']} of {bank.compared} subsets × {seeds}. "
        "LDS in percent with 95 % intervals over subsets."
    )


def table(rows: Sequence[Row], word: str = "", *, of: str = "") -> str:
    """Lines down, splits and columns across: LDS, or with `of` that difference.

    A line without a column stands in the first.
    """
    columns = sorted(dict.fromkeys(row["column"] for row in rows if row["column"]), key=_number) or [""]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    heads = [
        f"{SPLITS.get(split, split)}<br>{column} {word}".rstrip() for split in splits for column in columns
    ]
    timed = any("seconds_from_empty_store" in row for row in rows) and not of
    text = [
        "| | " + " | ".join([*heads, *(["seconds"] if timed else [])]) + " |",
        "|---" * (len(heads) + 1 + timed) + "|",
    ]
    for name in dict.fromkeys(row["row"] for row in rows):
        line = {(row["split"], row["column"] or columns[0]): row for row in rows if row["row"] == name}
        cells = [_cell(line.get((split, column)), of) for split in splits for column in columns]
        if timed:
            alone = {row["column"]: row.get("seconds_from_empty_store") for row in line.values()}
            cells.append(
                " / ".join(f"{seconds:.0f}" for _, seconds in sorted(alone.items()) if seconds is not None)
                or "–"
            )
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
    """All rows with their settings, in a section that is closed at first."""
    bases = " or ".join(dict.fromkeys(row["minus"]["row"] for row in rows if row["minus"]))
    heads = ["", "", "split", "LDS", *([f"minus {bases}, paired"] if bases else [])]
    heads += ["chosen for each half", "oracle", "seconds", "features computed"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        oracle = max(row["all"], key=lambda point: point["lds"]) if row["all"] else None
        best = "" if oracle is None else f"{_words(oracle['setting'])}: {100 * oracle['lds']:.1f}"
        chosen = "; ".join(dict.fromkeys(_words(setting) for setting in row["chosen"]))
        at = row["column"] if row["x"] is None else f"{row['column']} {row['x']:g}"
        minus = [_cell(row, "minus") if row["minus"] else ""] if bases else []
        cost = [f"{row['seconds']:.1f}", f"{row['features_computed']:,}"]
        lines.append(
            f"| {' | '.join([row['row'], at, row['split'], _cell(row), *minus, chosen, best, *cost])} |"
        )
    note = (
        "Chosen: what each half of the queries is scored with, which the other half prefers. Oracle: the "
        "best on the very queries that it is measured on, so too high. Seconds are with the features that "
        "were in the store; so many were computed."
    )
    return f"<details><summary>Every row</summary>\n\n{note}\n\n" + "\n".join(lines) + "\n\n</details>"


def _cell(row: Row | None, of: str = "") -> str:
    """A figure with its interval in percent; a difference with its sign."""
    if row is None:
        return "–"
    cell, name, sign = (row[of], "mean", "+") if of else (row, "lds", "")
    mean, low, high = (cell[key] for key in (name, "low", "high"))
    return f"{100 * mean:{sign}z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"


def _words(setting: dict[str, Any]) -> str:
    words = {name: f"{value:g}" if isinstance(value, float) else value for name, value in setting.items()}
    return ", ".join(f"{name} {word}" for name, word in words.items())


def _number(column: str) -> float:
    """The sort key of a column: numbers in order, then words in the order they come in."""
    return float(column) if column.isdigit() else float("inf")
