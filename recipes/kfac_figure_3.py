"""Figure 3: how much the loss of a picture rises when its top influences are removed and the model is trained again

Median over generated pictures [quartiles], and against removing as many at random, paired over pictures: mean difference [95 %
interval]. EK-FAC with 100 timesteps and nothing chosen; TRAK and D-TRAK with fields chosen on validation.
"""

import json
import sys
from typing import Any

import pages
from engine import Given, main

PAPER = "K-FAC's top influences raise the loss more than those of TRAK and D-TRAK, with 2 % and 10 % removed."
HERE = {
    "digits": (
        "With 10 % removed EK-FAC's raise the loss by 0.0146, TRAK's by 0.0082, D-TRAK's by 0.0116 (medians; at random 0.0040); "
        "with 2 % EK-FAC and D-TRAK are about equal and TRAK is below. The nearest by pixels raise it most, 0.0168."
    ),
}

FOUND = pages.RESULTS.parent.parent / "benchmarks" / "results"


def page(given: Given) -> None:
    """A line for every method, from what `benchmarks/counterfactual.py` has measured on this bank."""
    path = FOUND / f"counterfactual-{given.bank.folder.name}.json"
    if not path.exists():
        print(f"kfac_figure_3: benchmarks/counterfactual.py has not run for the bank {given.bank.folder.name}.", file=sys.stderr)
        return
    found = json.loads(path.read_text())
    counts = found["removed"]
    heads = ["", *(f"{count} removed{more}" for count in counts for more in ("", ", minus random"))]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, each in found["methods"].items():
        cells = [cell for count in counts for cell in _cells(each["removed"][str(count)]["simple"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    title, caption = pages.title_and_caption(sys.modules[__name__])
    ground = f"Bank `{given.bank.folder.name}`: {len(found['queries'])} pictures, {found['train']:,} training images."
    made = f"Made by `recipes/kfac_figure_3.py` of `benchmarks/results/{path.name}`."
    pages.save(given.folder / "kfac_figure_3.md", [f"# {title}", caption, ground, "\n".join(lines), made])


def _cells(of: dict[str, Any]) -> tuple[str, str]:
    low, median, high = (of["quartiles"][name] for name in ("low", "median", "high"))
    more = of.get("against_random")
    against = f"{more['mean']:+.4f} [{more['low']:.4f}, {more['high']:.4f}]" if more else "–"
    return f"{median:.4f} [{low:.4f}, {high:.4f}]", against


if __name__ == "__main__":
    main("kfac_figure_3", doc=__doc__)
