"""Your own pictures: train a small model on a folder, make new pictures, and trace them back to the folder.

Run: python examples/own_pictures.py [FOLDER]. Without a folder, handwritten digits are written into one: one
subfolder per class."""

import sys
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

import headwater
from headwater.models import loading
from headwater.models.create import network, train_model
from headwater.models.generate import pictures
from headwater.models.train import Recipe


def digits_in(folder: Path, count: int = 300) -> Path:
    """The first digits of scikit-learn as PNG files: FOLDER/<class>/<number>.png."""
    digits = headwater.open_examples("digits")
    assert digits.labels is not None
    for row in range(count):
        path = folder / str(digits.labels[row]) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[row].squeeze(-1)).save(path)
    return folder


def main() -> None:
    """Train, generate, attribute, and print the strongest proponents of each new picture."""
    out = Path(mkdtemp(prefix="headwater-"))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else digits_in(out / "digits")
    train = headwater.open_examples(str(folder))
    recipe = Recipe(steps=60, batch=64, learning_rate=1e-3, flips=False)
    train_model(network("digits", train), train, recipe, out / "model")
    model = loading.load(out / "model", checkpoints=4)
    queries = pictures(model, 4, seed=0)
    scores = headwater.attribute(model, train, queries, method=headwater.DTRAK(timesteps=10))
    ranked = scores.top(3)
    for name, rows, values in zip(queries.ids, ranked.rows, ranked.values, strict=True):
        best = ", ".join(f"{train.ids[row]} ({value:.3g})" for row, value in zip(rows, values, strict=True))
        print(f"{name}: {best}")


if __name__ == "__main__":
    main()
