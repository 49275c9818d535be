"""Figure 15: proponents and opponents found by TRAK and D-TRAK with 10 and 100 timesteps

For every picture the five training images with the highest scores and the three with the lowest, each with
its score. The damping is the best on validation. The paper has this figure for each of its data sets (15 to
19).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.attribution.experiment import run
from headwater.pages.charts import scale_of
from headwater.pages.page import report
from headwater.run import Run, first_queries, open_run
from papers._shared.bench import tuned_line
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import Line, kernel
from papers._shared.session import Session

PAPER = "D-TRAK's proponents look more like the picture than TRAK's."

PROPONENTS, OPPONENTS, QUERIES = 5, 3, 6  # as many of validation as of generation


def lines(session: Session) -> list[Line]:
    return [
        Line(row=method, column=f"{timesteps}", **kernel(method, timesteps))
        for method in ("trak", "d-trak")
        for timesteps in session.counts(10, 100)
    ]


def page(session: Session, exhibit: Exhibit) -> None:
    """A run for every line, the page that compares them, and a drawing of its first pictures."""
    from papers._shared.drawing import album

    folders = [run_folder(line, session) for line in lines(session)]
    html = session.folder / "figure_15.html"
    report(folders, html, queries=3 * QUERIES, proponents=PROPONENTS, opponents=OPPONENTS)
    rows = list(rows_of_pictures(session, [open_run(folder) for folder in folders]))
    figure = exhibit.save_figure(album(rows, ("Query", "Proponents", "Opponents")), session.folder)
    link = "More pictures, with all their scores, on [a page of their own](figure_15.html)."
    exhibit.save_page(session.folder, [figure, link])


def run_folder(line: Line, session: Session) -> Path:
    """The folder of the line's run, in the store."""
    out = session.store.root / "runs" / session.bank.folder.name / f"{line.row}-{line.column}"
    chosen_on_validation = session.experiment(
        tuned_line(line, session)
    )  # so no figure of validation may stand on the page
    name = session.bank.folder.name
    sources = {
        "train": f"{name}/train.npz",
        "query": f"{name}/queries.npz",
        "models": [f"{name}/{line.model}"],
    }
    run(replace(chosen_on_validation, bank=None, sources=sources), out, session.store, force=True)
    return out


def rows_of_pictures(session: Session, runs: list[Run]) -> Iterator[tuple[str, list[list[Any]]]]:
    """For each query and run a row of pictures: the query before the first, proponents, opponents."""
    from papers._shared.drawing import HUES, Picture

    train = session.bank.train.images
    for q in first_queries(session.bank.queries, QUERIES):
        for run_of in runs:
            values = run_of.scores.values[q]
            scale = scale_of(values, signed=True)
            most, least = run_of.scores.top(PROPONENTS).rows[q], run_of.scores.bottom(OPPONENTS).rows[q]
            fields = run_of.info["fields"]
            query = [Picture(session.bank.queries.images[q])] if run_of is runs[0] else []
            ends = [
                [Picture(train[i], scale(float(values[i])), hue) for i in rows]
                for rows, hue in (
                    (most[values[most] > 0], HUES["d-trak"]),
                    (least[values[least] < 0], HUES["trak"]),
                )
            ]
            unit = f"  × {scale.unit}" if scale.unit else ""
            yield f"{run_of.info['title']}, {fields['timesteps']}{unit}", [query, *ends]


if __name__ == "__main__":
    main(Exhibit("dtrak", "figure_15"), doc=__doc__)
