"""Figure 15: proponents and opponents found by TRAK and D-TRAK with 10 and 100 timesteps

For every picture the five training images with the highest scores and the three with the lowest, each with its score. The damping
is the best on validation. The paper has this figure for each of its data sets (15 to 19).
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pages
from engine import Given, Line, kernel, main, tuned_line
from headwater.attribution.experiment import run
from headwater.pages.charts import scale_of
from headwater.pages.page import report
from headwater.run import Run, first_queries, open_run

PAPER = "D-TRAK's proponents look more like the picture than TRAK's."

PROPONENTS, OPPONENTS, QUERIES = 5, 3, 6  # as many of validation as of generation


def lines(given: Given) -> list[Line]:
    return [
        Line(row=method, column=f"{timesteps}", **kernel(method, timesteps))
        for method in ("trak", "d-trak")
        for timesteps in given.counts(10, 100)
    ]


def page(given: Given) -> None:
    """A run for every line, the page that compares them, and a drawing of its first pictures."""
    import drawing

    folders = [made(line, given) for line in lines(given)]
    report(folders, given.folder / "figure_15.html", queries=3 * QUERIES, proponents=PROPONENTS, opponents=OPPONENTS)
    title, caption = pages.title_and_caption(sys.modules[__name__])
    rows = list(drawn(given, [open_run(folder) for folder in folders]))
    drawing.save(drawing.album(rows, ("Query", "Proponents", "Opponents")), given.folder / "figure_15.svg", title)
    more = "More pictures, with all their scores, on [a page of their own](figure_15.html)."
    pages.save(given.folder / "figure_15.md", [f"# {title}", caption, f"![{title}](figure_15.svg)", more])


def made(line: Line, given: Given) -> Path:
    """The line as a run folder, in the store."""
    out = given.store.root / "runs" / given.bank.folder.name / f"{line.row}-{line.column}"
    chosen_on_validation = given.run(tuned_line(line, given))  # so no figure of validation may stand on the page
    name = given.bank.folder.name
    sources = {"train": f"{name}/train.npz", "query": f"{name}/queries.npz", "models": [f"{name}/{line.model}"]}
    run(replace(chosen_on_validation, bank=None, sources=sources), out, given.store, force=True)
    return out


def drawn(given: Given, runs: list[Run]) -> Iterator[tuple[str, list[list[Any]]]]:
    """For each query and run a row of pictures: the query before the first, proponents, opponents."""
    from drawing import HUES, Picture

    train = given.bank.train.images
    for q in first_queries(given.bank.queries, QUERIES):
        for run_of in runs:
            values = run_of.scores.values[q]
            scale = scale_of(values, signed=True)
            most, least = run_of.scores.top(PROPONENTS).rows[q], run_of.scores.bottom(OPPONENTS).rows[q]
            fields = run_of.info["fields"]
            query = [Picture(given.bank.queries.images[q])] if run_of is runs[0] else []
            ends = [
                [Picture(train[i], scale(float(values[i])), hue) for i in rows]
                for rows, hue in ((most[values[most] > 0], HUES["d-trak"]), (least[values[least] < 0], HUES["trak"]))
            ]
            yield f"{run_of.info['title']}, {fields['timesteps']}{f'  × {scale.unit}' if scale.unit else ''}", [query, *ends]


if __name__ == "__main__":
    main("figure_15", doc=__doc__)
