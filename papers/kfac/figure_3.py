"""Figure 3: how much the loss of a picture rises when its top influences are removed and the model is trained
again

Median over generated pictures [quartiles], and against removing as many at random, paired over pictures: mean
difference [95 % interval]. EK-FAC with 100 timesteps and nothing chosen; TRAK and D-TRAK with fields chosen
on validation.
"""

import json
import sys

from headwater.evaluate.removals import RemovalEffect, RemovalFigures
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import ROOT
from papers._shared.session import Session

PAPER = "K-FAC's top influences raise the loss more than those of TRAK and D-TRAK, with 2 % and 10 % removed."
HERE = {
    "digits": (
        "With 10 % removed EK-FAC's raise the loss by 0.0146, TRAK's by 0.0082, D-TRAK's by 0.0116 (medians; "
        "at random 0.0040); with 2 % EK-FAC and D-TRAK are about equal and TRAK is below. The nearest by "
        "pixels raise it most, 0.0168."
    ),
}

RECORDS = ROOT / "benchmarks" / "results"


def page(session: Session, exhibit: Exhibit) -> None:
    """A line for every method, from what `benchmarks/counterfactual.py` has measured on this bank."""
    path = RECORDS / f"counterfactual-{session.bank.folder.name}.json"
    if not path.exists():
        bank = session.bank.folder.name
        print(
            f"{exhibit.stem}: benchmarks/counterfactual.py has not run for the bank {bank}.", file=sys.stderr
        )
        return
    figures = RemovalFigures.from_json(json.loads(path.read_text(encoding="utf-8")))
    counts = figures.removed
    heads = ["", *(f"{count} removed{ending}" for count in counts for ending in ("", ", minus random"))]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, method in figures.methods.items():
        cells = [cell for count in counts for cell in _cells(method.removed[count]["simple"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    sizes = f"{len(figures.queries)} pictures, {figures.train:,} training images"
    ground = f"Bank `{session.bank.folder.name}`: {sizes}."
    origin = f"{exhibit.origin} of `benchmarks/results/{path.name}`."
    exhibit.save_page(session.folder, [ground, "\n".join(lines), origin])


def _cells(rise: RemovalEffect) -> tuple[str, str]:
    (low, median, high), paired = rise.quartiles, rise.against_random
    if paired is None:
        return f"{median:.4f} [{low:.4f}, {high:.4f}]", "–"
    mean, least, most = paired.difference
    return f"{median:.4f} [{low:.4f}, {high:.4f}]", f"{mean:+.4f} [{least:.4f}, {most:.4f}]"


if __name__ == "__main__":
    main(Exhibit("kfac", "figure_3"), doc=__doc__)
