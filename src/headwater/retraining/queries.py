"""A bank's queries: held-out images, pictures that its model generates, and pictures added later."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt8

from headwater.bank import Bank
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import condition, decoded, encoded
from headwater.diffusion.sample import Samples, conditioned, sample
from headwater.disk.npz import read_examples, write_examples
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, Warn, to_warnings
from headwater.examples import Examples, labelled_like, to_uint8, with_channels
from headwater.models import loading
from headwater.retraining.outcomes import outcomes
from headwater.retraining.recipe import BankRecipe, from_fields

BATCH = 256  # pictures generated at once


class Conditions(NamedTuple):
    """The class or prompt of each generated query; neither for an unconditional model."""

    labels: Int64[np.ndarray, " g"] | None
    prompts: tuple[str, ...] | None

    def at(self, rows: range) -> "Conditions":
        """The conditions of the pictures numbered `rows`."""
        part = slice(rows.start, rows.stop)
        labels = None if self.labels is None else self.labels[part]
        return Conditions(labels, None if self.prompts is None else self.prompts[part])


def conditions_of(recipe: BankRecipe, model: Denoiser, training: Examples) -> Conditions:
    """Labels that cycle through the model's classes, or runs of the training set's distinct prompts.

    Every prompt gets an equal run; of more prompts than pictures, an evenly spaced selection.
    """
    count = recipe.generated
    prompts = sorted(set(training.prompts or ()))
    return Conditions(
        None if model.classes is None else np.arange(count) % model.classes,
        None if model.text is None else tuple(prompts[i * len(prompts) // count] for i in range(count)),
    )


def queries_of(recipe: BankRecipe, model: Denoiser, training: Examples, held_out: Examples) -> Examples:
    """The held-out images (`val`) and the model's own pictures (`gen`)."""
    count, conditions = recipe.generated, conditions_of(recipe, model, training)
    held_out = with_channels(held_out, model.pictures[0])
    labels = np.full(count, -1) if conditions.labels is None else conditions.labels
    prompts = conditions.prompts
    pictures = [to_uint8(generate_queries(recipe, model, rows, conditions)) for rows in batches(count)]
    return Examples(
        np.concatenate([held_out.images, *pictures]),
        ids=(*held_out.ids, *(f"generated-{i:03d}" for i in range(count))),
        labels=None if held_out.labels is None else np.append(held_out.labels, labels),
        prompts=None if prompts is None else (*(held_out.prompts or ()), *prompts),
        split=("val",) * len(held_out) + ("gen",) * count,
    )


def batches(count: int) -> list[range]:
    """The numbers 0 … count−1 in runs of up to BATCH."""
    return [range(low, min(low + BATCH, count)) for low in range(0, count, BATCH)]


def generate_queries(
    recipe: BankRecipe, model: Denoiser, rows: range, conditions: Conditions
) -> Float[np.ndarray, "b c h w"]:
    """The generated queries numbered `rows`, each from its own noise, as this model makes them."""
    return decoded(model, sample_queries(recipe, model, rows, conditions).pictures).float().cpu().numpy()


def sample_queries(
    recipe: BankRecipe, model: Denoiser, rows: range, conditions: Conditions, *, keep_path: bool = False
) -> Samples:
    """`generate_queries` before decoding, with the sampler's path if `keep_path`."""
    predict = conditioned(model, condition(model, *conditions.at(rows)), recipe.guidance)
    return sample(
        model,
        rows,
        recipe.sample_seed,
        sampler=recipe.sampler,
        steps=recipe.sample_steps,
        predict=predict,
        keep_path=keep_path,
    )


def rehearse(
    recipe: BankRecipe, model: Denoiser, training: Examples, held_out: Examples, store: FeatureStore
) -> None:
    """A dry run, so that an impossible request fails before hours of training."""
    sample_queries(replace(recipe, sample_steps=1), model, range(1), conditions_of(recipe, model, training))
    outcomes(model, encoded(model, held_out.take([0]), store), recipe.measurements, Draws(1))


def on_paths(bank: Bank, device: str = "cpu") -> Bank:
    """The bank with its generated queries alone, sampled again with the sampler's paths.

    Pictures that were added later and come from elsewhere are left out.
    """
    recipe, model = from_fields(bank.info["recipe"]), loading.load(bank.folder / "model", device)
    conditions = conditions_of(recipe, model, bank.train)
    parts = [
        sample_queries(recipe, model, rows, conditions, keep_path=True) for rows in batches(recipe.generated)
    ]
    pictures = np.concatenate(
        [to_uint8(decoded(model, part.pictures).float().cpu().numpy()) for part in parts]
    )
    equal = _equal(bank, pictures)
    places, rows = [q for q, _ in equal], [i for _, i in equal]
    path = np.concatenate(
        [np.asarray(part.path.cpu(), np.float32) for part in parts if part.path is not None]
    )[rows]
    queries = replace(bank.queries.take(places), trajectory=path, trajectory_timesteps=parts[0].timesteps)
    chosen = np.array(bank.chosen or range(len(bank.queries)))[places]
    return replace(bank, queries=queries, chosen=tuple(chosen.tolist()))


def _equal(bank: Bank, pictures: UInt8[np.ndarray, "g h w c"]) -> list[tuple[int, int]]:
    """The bank's generated queries, each with the number of the picture made again that it equals."""
    numbers = {f"generated-{number:03d}": number for number in range(len(pictures))}
    split = bank.queries.split or ("",) * len(bank.queries)
    generated = [
        (q, numbers[name]) for q, name in enumerate(bank.queries.ids) if split[q] == "gen" and name in numbers
    ]
    equal = [
        (q, i) for q, i in generated if np.abs(pictures[i].astype(int) - bank.queries.images[q]).max() <= 1
    ]
    if not equal:
        raise DataError(
            f"The model in {bank.folder / 'model'} makes none of {len(generated)} generated queries again: "
            "the model or the queries were replaced. Only generated queries have a sampler's path."
        )
    return equal


def with_new(folder: Path, training: Examples, new: Examples | None, warn: Warn = to_warnings) -> Examples:
    """The bank's queries and those being added to it, now or by a build that was stopped; none twice."""
    queries, path = read_examples(folder / "queries.npz"), folder / "parts" / "added.npz"
    waiting = [read_examples(path)] if path.exists() else []
    if new is not None:
        waiting.append(labelled_like(with_channels(new, queries.shape[0]), training, warn))
    if not waiting:
        return queries
    added = waiting[0] if len(waiting) == 1 else _joined(*waiting)
    # the first of equal pictures
    first = dict(zip(reversed(added.hashes), reversed(range(len(added))), strict=True))
    rows = sorted(row for content, row in first.items() if content not in set(queries.hashes))
    if not rows:
        path.unlink(missing_ok=True)
        return queries
    if new is not None:
        write_examples(path, added.take(rows))
    return _joined(queries, added.take(rows))


def publish(folder: Path, queries: Examples) -> None:
    """Let added queries join the bank, now that all models have measured them."""
    if (folder / "parts" / "added.npz").exists():
        write_examples(folder / "queries.npz", queries)
        (folder / "parts" / "added.npz").unlink()


def _joined(queries: Examples, added: Examples) -> Examples:
    """Both, one after the other; missing splits are `added`, missing labels −1, missing prompts empty."""
    split = tuple(word for side in (queries, added) for word in (side.split or ("added",) * len(side)))
    labels = prompts = None
    if queries.labels is not None:
        labels = np.concatenate(
            [queries.labels, np.full(len(added), -1) if added.labels is None else added.labels]
        )
    if queries.prompts is not None:
        prompts = (*queries.prompts, *(added.prompts or ("",) * len(added)))
    images = np.concatenate([queries.images, added.images])
    return Examples(images, ids=(*queries.ids, *added.ids), labels=labels, prompts=prompts, split=split)
