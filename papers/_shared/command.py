"""The command line of all exhibits: measure what is not known, write the pages and the index of results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from headwater.attribution.open import Machine
from headwater.bank import open_bank
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import UserError
from headwater.workers import Pool
from papers._shared import pages
from papers._shared.bench import rows_of, rows_with_seconds
from papers._shared.exhibit import PAPERS, Exhibit
from papers._shared.keeping import RESULTS, Row
from papers._shared.line import REFERENCES
from papers._shared.session import Session


def main(*exhibits: Exhibit, doc: str | None = None) -> None:
    """Carry out the exhibits as the command line says, and write the index of all results."""
    options = parser(doc).parse_args()
    try:
        session = session_of(options)
        for exhibit in exhibits:
            write_seconds(exhibit, session) if options.seconds else run(exhibit, session, options.again)
    except UserError as error:
        sys.exit(f"{error}")
    pages.write_index(PAPERS, session.results)


def run(exhibit: Exhibit, session: Session, again: Sequence[str] = ()) -> list[Row]:
    """Measure what is not known yet of an exhibit, and all lines of the methods in `again`; then write its
    page.
    """
    if hasattr(exhibit.module, "page"):
        exhibit.module.page(session, exhibit)
        return []
    lines = exhibit.module.lines(session)
    if all(line.method in REFERENCES for line in lines):
        print(
            f"{exhibit.stem}: the bank {session.bank.folder.name} has nothing to measure for it.",
            file=sys.stderr,
        )
        return []
    rows = rows_of(exhibit, lines, session, again)
    pages.write(exhibit, rows, session.bank, session.folder)
    return rows


def write_seconds(exhibit: Exhibit, session: Session) -> None:
    """Add to each row the seconds of its line alone, and write the page again."""
    rows = rows_with_seconds(exhibit, exhibit.module.lines(session), session)
    pages.write(exhibit, rows, session.bank, session.folder)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all exhibits share."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    add("--bank", default="digits", help="a bank that ships, or its folder")
    add("--store", type=Path, help="the folder of features [default: $HEADWATER_STORE or the user cache]")
    add("--results", type=Path, default=RESULTS, help="the folder of rows and pages [default: docs/results]")
    add("--timesteps", type=int, nargs="+", help="numbers of timesteps [default: the exhibit's own]")
    add(
        "--embedder",
        help="for clip: a name, a folder, or package.module:function [default: clip is left out]",
    )
    add("--models", type=Path, help="the folder of models of learning subsets [default: in the store]")
    add("--again", nargs="+", default=[], metavar="METHOD", help="measure these methods again")
    add("--workers", type=int, help="compute features in this many processes [default: in this one]")
    add("--device", default="cpu", help="cpu, cuda, …")
    add("--memory", type=float, default=1.0, help="GiB that one pass through a model may take")
    add("--seconds", action="store_true", help="only the seconds of each line, each from an empty store")
    return options


def session_of(options: argparse.Namespace) -> Session:
    """The session that the options describe."""
    root = options.store or default_root()
    return Session(
        bank=open_bank(options.bank),
        store=FeatureStore(
            root,
            crew=Pool(options.workers) if options.workers else None,
            memory=int(options.memory * 2**30),
        ),
        models=options.models or root / "models",
        machine=Machine(options.device),
        results=options.results,
        timesteps=tuple(options.timesteps) if options.timesteps else None,
        embedder=options.embedder,
    )
