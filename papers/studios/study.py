"""Two studios drew the same emoji: which one is credited for a picture in the style of one of them?

Google and Twitter drew the same 3,786 emoji. Adapters (LoRA) of a small Stable Diffusion that had seen
neither are trained on both, with prompts "a {concept} emoji in {studio} style". Pictures are made for
concepts drawn at random, half of them with skin tones, each in both styles; every method credits them. The
credited studio is that with the larger share of all positive score. What a method chooses (λ) is chosen on
one half of the concepts and counted on the other, both ways.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from benchmarks.environment import environment
from headwater import load
from headwater.cli.progress import progress_bar
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import encoded
from headwater.disk.npz import read_examples, write_examples
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.embedding import name_of
from headwater.linalg.damping import Damping
from headwater.methods import make
from headwater.models import adapters as tuning
from headwater.models.create import train_model
from headwater.models.generate import Sampling, pictures
from headwater.models.train import LORA, Recipe
from headwater.scores import dense
from papers._shared.exhibit import save_paragraphs
from papers._shared.keeping import RESULTS
from papers.studios.base import Base, base
from papers.studios.emoji import PROMPT, STUDIOS, concepts, emoji, query_concepts
from papers.studios.judge import FIRST, Judge, percent, table

TRAINING = replace(
    LORA, epochs=25, learning_rate=1e-3, flips=False
)  # mirrored letters and flags are nobody's emoji
PLAIN = (
    Sampling()
)  # 50 steps of DDIM without guidance: prompts were never dropped while adapters were trained
FINDINGS = """\
**What was found.** The pictures are blobs, of a UNet that two cores trained in an hour, and show little of a
studio: methods that see pictures alone credit by chance. D-TRAK credits the studio that was asked for in 95
of 100 pictures, and the concept that was asked for leads in 20 to 27 where chance has less than one. But it
is told the prompt. Told that the same pictures were asked of the other studio, it credits that one, in 88 of
100, though λ is chosen there for being right. Here credit follows the words of the prompt, not the picture:
whoever credits by a text-conditioned model's gradients should ask what another prompt would have credited.
TRAK is right in 66 of 100; plain inner products of gradients are at chance."""
DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Line(NamedTuple):
    """A method at one setting of its fields; one of the `dampings` is chosen.

    `swapped`: the prompts that it sees name the other studio.
    """

    row: str
    method: str
    fields: Mapping[str, Any] = {}
    dampings: Sequence[float] | None = None
    swapped: bool = False


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that the figures depend on, except the code.

    `images`: where each studio's images begin and end (None: all of them); `also`: more rows of the table.
    """

    base: Base = field(default_factory=Base)
    rank: int = 32
    training: Recipe = TRAINING
    images: tuple[int, int] | None = None
    concepts: int = 128
    sampling: Sampling = PLAIN
    timesteps: int = 10
    k: int = 4096
    seed: int = 0
    also: tuple[Line, ...] = field(default=())

    def lines(self) -> list[Line]:
        """The rows of the table."""
        draws = {"timesteps": self.timesteps}
        features = draws | {"k": self.k}
        return [
            Line("`random`", "random"),
            Line("`pixel`", "pixel"),
            Line("`pixel`, latents", "pixel", {"space": "latents"}),
            Line("`optimal-score`", "optimal-score"),
            Line("`optimal-score`, latents", "optimal-score", {"space": "latents"}),
            Line("`nda`, latents", "nda", {"space": "latents"}),
            *self.also,
            Line("`gradient`", "gradient", features),
            Line("`gradient-cos`", "gradient-cos", features),
            Line("`trak`, λ chosen", "trak", features, DAMPINGS),
            Line("`d-trak`, λ chosen", "d-trak", features, DAMPINGS),
            Line("`d-trak`, λ chosen, told the other studio", "d-trak", features, DAMPINGS, swapped=True),
            Line("`ek-fac`", "ek-fac", draws),
            Line("`tracin`, 2 checkpoints", "tracin", features | {"checkpoints": 2}),
        ]


def adapters(study: Study, base_folder: Path, train: Examples, out: Path, store: FeatureStore) -> Path:
    """The folder of the adapters trained on both studios."""
    with progress_bar("train adapters") as tick:
        network = tuning.lora_tuning(base_folder, study.rank, train.shape[1:], store)
        train_model(network, train, study.training, out, study.seed, tick=tick)
    return out


def queries_of(study: Study, model: Denoiser, train: Examples, path: Path) -> Examples:
    """The queries, read from `path` or made: each concept in both styles, each picture from its own noise."""
    if path.exists():
        return read_examples(path)
    pairs = [(name, studio) for name in query_concepts(train, study.concepts) for studio in STUDIOS]
    prompts = [PROMPT.format(concept=name, studio=studio) for name, studio in pairs]
    with progress_bar("sample") as tick:
        images = pictures(model, len(pairs), study.seed, sampling=study.sampling, prompts=prompts, tick=tick)
    ids = tuple(f"{studio} {name}" for name, studio in pairs)
    queries = replace(images, ids=ids, groups=tuple(studio for _, studio in pairs), latents=None)
    write_examples(path, queries)
    return queries


def scores(
    line: Line, model: Denoiser, train: Examples, queries: Examples, store: FeatureStore
) -> Float32[np.ndarray, "λ q n"]:
    """The scores at every damping, from one fit."""
    method = make(line.method, line.fields)
    index = method.fit(model, train, store)
    if line.dampings is None:
        return dense(method.score(index, queries, store))[None]
    return dense(method.scores_at(index, queries, [Damping(value) for value in line.dampings], store))


def prompts_of(queries: Examples, swapped: bool) -> tuple[str, ...]:
    """The prompts of the pictures, or `swapped`, the same prompts with the other studio."""
    names = [name.partition(" ")[2] for name in queries.ids]
    places = [STUDIOS.index(studio) for studio in queries.groups or ()]
    return tuple(
        PROMPT.format(concept=name, studio=STUDIOS[1 - place if swapped else place])
        for name, place in zip(names, places, strict=True)
    )


def study(config: Study, data: Path, weights: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Base, adapters, pictures, and a row for every method. Finished steps are not done again."""
    store = FeatureStore(out / "store")
    train = emoji(data, config.images)
    folder = base(config.base, data, weights, out / "base", store)
    lora = adapters(config, folder, train, out / "lora", store)
    model = load(folder, lora=lora, size=train.shape[1:], checkpoints=2)
    queries = queries_of(config, model, train, out / "queries.npz")
    judge = Judge(train.groups or (), concepts(train), queries)
    inputs = encoded(model, train, store)
    prompted = {
        swapped: encoded(model, replace(queries, prompts=prompts_of(queries, swapped)), store)
        for swapped in (False, True)
    }
    for line in config.lines():
        values, best = judge.crossed(scores(line, model, inputs, prompted[line.swapped], store))
        chosen = None if line.dampings is None else sorted({line.dampings[i] for i in best})
        settings = {"row": line.row, "method": line.method, "fields": dict(line.fields), "damping": chosen}
        yield {**settings, **judge.row(values)}


def page(config: Study, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The table, and all in numbers beside it."""
    title, _, caption = (__doc__ or "").strip().partition("\n\n")
    note = (
        f"{2 * config.concepts} pictures; percent with 95 % Wilson intervals. *Leads*: has the highest score "
        "of all training images. *Concept*: an image of what was asked for, of either studio; with skin "
        f"tones each studio drew six or more. *Of ten*: percent of the {FIRST} of highest score that are of "
        "such a concept."
    )
    link = "All in numbers: [studios.json](studios.json)."
    save_paragraphs(folder / "README.md", [f"# {title}", caption, note, table(rows), FINDINGS, link])
    fields = json.loads(json.dumps(asdict(config), default=str))
    record = {"study": fields, "environment": environment(), "rows": list(rows)}
    (folder / "studios.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def arguments() -> argparse.Namespace:
    """Folders and the embedder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    drawn = "emoji_google_64.npz, emoji_twitter_64.npz, crawl_tiles_32.npz"
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {drawn}")
    parser.add_argument("--weights", type=Path, required=True, help="folder with taesd and clip_tokenizer")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of base, adapters, pictures and features"
    )
    parser.add_argument(
        "--embedder", help="also similarity of embeddings: a name, a folder, or package.module:function"
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    os.environ["HEADWATER_DATA"] = str(options.data)  # the folder of CIFAR-10
    embedder = options.embedder
    also = (Line(f"`clip` ({name_of(embedder)})", "clip", {"embedder": embedder}),) if embedder else ()
    full, rows = Study(also=also), []
    for row in study(full, options.data, options.weights, options.out):
        print(row["row"], percent(row["credited"]), percent(row["leader's studio"]), flush=True)
        rows.append(row)
        page(full, rows, RESULTS / "studios")
