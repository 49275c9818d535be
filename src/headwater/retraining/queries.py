"""A bank's queries: held-out images, pictures that its model makes, and those added later."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from headwater.bank import Bank
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import condition, decoded, encoded
from headwater.diffusion.sample import Samples, conditioned, sample
from headwater.disk.npz import read_examples, write_examples
from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.examples import Examples, labelled_like, to_uint8
from headwater.models import loading
from headwater.retraining.outcomes import outcomes
from headwater.retraining.recipe import BankRecipe, from_fields

TOGETHER = 256  # pictures generated at once


class Told(NamedTuple):
    """What the model is told of each generated query: a class, or a prompt, or nothing."""

    labels: Int64[np.ndarray, " g"] | None
    prompts: tuple[str, ...] | None

    def at(self, rows: range) -> "Told":
        """That of the pictures numbered `rows`."""
        here = slice(rows.start, rows.stop)
        return Told(None if self.labels is None else self.labels[here], None if self.prompts is None else self.prompts[here])


def told_of(recipe: BankRecipe, model: Denoiser, training: Examples) -> Told:
    """Of a class-conditional model all classes in turn; of one that takes prompts the training images' own, as many pictures of
    each, one prompt after the other (of more prompts than pictures, some)."""
    count = recipe.generated
    words = sorted(set(training.prompts or ()))
    return Told(
        None if model.classes is None else np.arange(count) % model.classes,
        None if model.text is None else tuple(words[i * len(words) // count] for i in range(count)),
    )


def queries_of(recipe: BankRecipe, model: Denoiser, training: Examples, held_out: Examples) -> Examples:
    """The held-out images (`val`) and the model's own pictures (`gen`)."""
    count, told = recipe.generated, told_of(recipe, model, training)
    shown = np.full(count, -1) if told.labels is None else told.labels
    pictures = [regenerated(recipe, model, rows, told) for rows in together(count)]
    return Examples(
        np.concatenate([held_out.images, *(to_uint8(each) for each in pictures)]),
        ids=(*held_out.ids, *(f"generated-{i:03d}" for i in range(count))),
        labels=None if held_out.labels is None else np.append(held_out.labels, shown),
        prompts=None if told.prompts is None else (*(held_out.prompts or ()), *told.prompts),
        split=("val",) * len(held_out) + ("gen",) * count,
    )


def together(count: int) -> list[range]:
    """The numbers of so many pictures, those that are generated together side by side."""
    return [range(low, min(low + TOGETHER, count)) for low in range(0, count, TOGETHER)]


def regenerated(recipe: BankRecipe, model: Denoiser, rows: range, told: Told) -> Float[np.ndarray, "b c h w"]:
    """The generated queries numbered `rows` as this model makes them of the same noise."""
    return decoded(model, made_again(recipe, model, rows, told).pictures).float().cpu().numpy()


def made_again(recipe: BankRecipe, model: Denoiser, rows: range, told: Told, *, keep_path: bool = False) -> Samples:
    """The same before they are decoded, if the model makes latents; and if asked the path that the sampler went."""
    predict = conditioned(model, condition(model, *told.at(rows)), recipe.guidance)
    named = {"sampler": recipe.sampler, "steps": recipe.sample_steps}
    return sample(model, rows, recipe.sample_seed, **named, predict=predict, keep_path=keep_path)


def rehearse(recipe: BankRecipe, model: Denoiser, training: Examples, held_out: Examples, store: FeatureStore) -> None:
    """Make one picture in one step and measure another: what is asked of such a model in vain is told before it is trained."""
    made_again(replace(recipe, sample_steps=1), model, range(1), told_of(recipe, model, training))
    outcomes(model, encoded(model, held_out.take([0]), store), recipe.measurements, Draws(1))


def on_paths(bank: Bank, device: str = "cpu") -> Bank:
    """The bank with its generated queries alone, each with the path that made it: sampled again by the bank's model.

    Pictures that were added later and are not of its making are left out.
    """
    recipe, model = from_fields(bank.info["recipe"]), loading.load(bank.folder / "model", device)
    told = told_of(recipe, model, bank.train)
    parts = [made_again(recipe, model, rows, told, keep_path=True) for rows in together(recipe.generated)]
    pictures = np.concatenate([to_uint8(decoded(model, part.pictures).float().cpu().numpy()) for part in parts])
    numbers = {f"generated-{number:03d}": number for number in range(recipe.generated)}
    split = bank.queries.split or ("",) * len(bank.queries)
    found = [(place, numbers[name]) for place, name in enumerate(bank.queries.ids) if split[place] == "gen" and name in numbers]
    same = [(place, i) for place, i in found if np.abs(pictures[i].astype(int) - bank.queries.images[place]).max() <= 1]
    if not same:
        raise DataError(
            f"The model in {bank.folder / 'model'} makes none of the {len(found)} generated queries of the bank again: either is "
            "another one. Only generated queries have a sampler's path."
        )
    places, rows = (list(each) for each in zip(*same, strict=True))
    path = np.concatenate([np.asarray(part.path.cpu(), np.float32) for part in parts if part.path is not None])[rows]
    queries = replace(bank.queries.take(places), trajectory=path, trajectory_timesteps=parts[0].timesteps)
    return replace(bank, queries=queries, chosen=tuple(np.array(bank.chosen or range(len(bank.queries)))[places].tolist()))


def with_added(folder: Path, training: Examples, more: Examples | None) -> Examples:
    """The bank's queries and those being added to it, now or by a build that was stopped; none twice."""
    queries, path = read_examples(folder / "queries.npz"), folder / "parts" / "added.npz"
    waiting = [read_examples(path)] if path.exists() else []
    if more is not None:
        waiting.append(labelled_like(more, training))
    if not waiting:
        return queries
    added = waiting[0] if len(waiting) == 1 else _joined(*waiting)
    first = dict(zip(reversed(added.hashes), reversed(range(len(added))), strict=True))  # of equal pictures the first
    new = sorted(row for content, row in first.items() if content not in set(queries.hashes))
    if not new:
        path.unlink(missing_ok=True)
        return queries
    if more is not None:
        write_examples(path, added.take(new))
    return _joined(queries, added.take(new))


def publish(folder: Path, queries: Examples) -> None:
    """Let added queries join the bank, now that all models have measured them."""
    if (folder / "parts" / "added.npz").exists():
        write_examples(folder / "queries.npz", queries)
        (folder / "parts" / "added.npz").unlink()


def _joined(queries: Examples, more: Examples) -> Examples:
    """Both, one after the other; what is added is `added` unless it says otherwise; without a label −1, without a prompt ""."""
    split = tuple(word for each in (queries, more) for word in (each.split or ("added",) * len(each)))
    labels = prompts = None
    if queries.labels is not None:
        labels = np.concatenate([queries.labels, np.full(len(more), -1) if more.labels is None else more.labels])
    if queries.prompts is not None:
        prompts = (*queries.prompts, *(more.prompts or ("",) * len(more)))
    images = np.concatenate([queries.images, more.images])
    return Examples(images, ids=(*queries.ids, *more.ids), labels=labels, prompts=prompts, split=split)
