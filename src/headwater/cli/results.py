"""Commands that look at results: lds, report, credit, methods."""

import json
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import bar

app = typer.Typer()


@app.command()
def lds(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared, in pairs.")],
    bank: Annotated[str, typer.Argument(help="Bank folder, or `digits`.")],
    measurement: Annotated[str, typer.Option(help="Which of the bank's outcomes to predict.")] = "simple",
    over: Annotated[
        str, typer.Option(help="What intervals are resampled over: subsets or queries.")
    ] = "subsets",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How well runs' scores predict retraining: mean LDS per query split with its 95 % interval."""
    from headwater.bank import open_bank
    from headwater.evaluate.ground_truth import of_runs
    from headwater.pages.lds import as_text

    figures = of_runs(runs, open_bank(bank), measurement, over)
    record = next(iter(figures.runs.values())) if len(runs) == 1 else figures
    print(json.dumps(record.as_json()) if as_json else as_text(figures))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared on one page.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write [default: report.html in the first run].")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries are shown in full.")] = 48,
) -> None:
    """Make the HTML page of one run, or of several methods side by side."""
    from headwater.pages.page import report as page

    print(page(runs, out, queries=queries))


@app.command()
def credit(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    by: Annotated[
        str | None,
        typer.Option(
            help="label, group, prompt, or FILE.csv:column with a column `id`; by default group if there, "
            "else label."
        ),
    ] = None,
    also: Annotated[
        str | None,
        typer.Option(help="Another column of that CSV file, such as licence, to tell of each group."),
    ] = None,
    queries: Annotated[int, typer.Option(min=0, help="Also a table for each of the first N queries.")] = 0,
    query: Annotated[str | None, typer.Option(help="Also a table for the query with this id.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A file to write, .csv or .jsonld: the queries asked for, or every one, and each group's "
            "figures."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Who gets the credit: each artist's, label's or other group's share of the scores, with 95 %
    intervals."""
    from headwater.pages.credit.files import check_options, write
    from headwater.pages.credit.run import credited, queries_by_option
    from headwater.pages.credit.table import as_text, credit_figures
    from headwater.run import open_run

    check_options(out, by, also)
    opened = open_run(run)
    rows, shares = queries_by_option(opened, queries, query), credited(opened, by, also)
    figures = credit_figures(shares, rows)
    if out is not None:
        with bar("queries") as tick:
            write(out, shares, rows or range(len(opened.queries)), tick)
    print(json.dumps(figures.as_json()) if as_json else as_text(figures))


@app.command()
def methods() -> None:
    """List the methods with their equations, fields and costs."""
    from headwater.cost.methods import as_text

    print(as_text())
