"""A bank of your own: retrain a model on halves of your pictures, and see which method predicts the outcomes.

Run: python examples/own_bank.py [DIR]. Six halves of 60 digits and a tiny network, so that it ends in
seconds; a real bank has 64 halves or more (`headwater bank build --help`), and `headwater plan` says what it
will cost. Run again, it goes on where it stopped."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import headwater
from headwater.evaluate.lds import against
from headwater.retraining.build import build
from headwater.retraining.recipes import recipe


def main() -> None:
    """Build the bank, and print the LDS of two methods and of random scores on it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="headwater-")) / "bank"
    digits = headwater.open_examples("digits")
    train, held_out = digits.take(range(60)), digits.take(range(60, 68))
    small = recipe("digits-mini")
    training = replace(small.training, steps=60, batch=32)
    plan = replace(small, training=training, subsets=6, seeds=1, learning=0, generated=8)
    for finished, total in build(folder, plan, train, held_out):
        print(f"{finished} of {total} models", file=sys.stderr)
    bank = headwater.open_bank(folder)
    for method in (headwater.TRAK(timesteps=5), headwater.Pixel(), headwater.Random()):
        model = None if isinstance(method, headwater.Pixel | headwater.Random) else str(bank.folder / "model")
        scores = headwater.attribute(model, bank.train, bank.queries, method=method)
        mean = against(bank, scores.values).mean()
        print(f"{method.title:16} LDS {100 * mean.mean:5.1f} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]")


if __name__ == "__main__":
    main()
