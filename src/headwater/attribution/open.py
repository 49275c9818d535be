"""Names to objects: sources opened, models loaded, a method made, everything checked before the first
gradient."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headwater.attribution.experiment import Experiment
from headwater.attribution.notes import note_on_checkpoints, notes_on_conditions
from headwater.bank import Bank, open_bank
from headwater.data import open_examples
from headwater.data.template import captioned, names_in
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import OptionError, Warn, once, to_warnings
from headwater.examples import Examples, labelled_like
from headwater.families.protocol import Method, PathBound, Staged
from headwater.methods import make
from headwater.models import hub, loading
from headwater.models.cache import trained
from headwater.models.device import available
from headwater.retraining.jobs import trainable, training_of
from headwater.retraining.queries import on_paths
from headwater.retraining.recipe import from_fields


class Machine(NamedTuple):
    """Where the models run, and the dtype of their weights."""

    device: str = "cpu"
    dtype: str = "float32"


class Models(NamedTuple):
    """The models to differentiate: those named in `folders`, or `ensemble` models retrained on a bank's
    learning subsets.

    `cache` keeps retrained models; `lora` names adapters that were trained on the model. `store` holds the
    latents and embedded prompts that retrained models are trained on (None: the usual one)."""

    folders: list[str]
    ensemble: int | None = None
    cache: Path | None = None
    lora: str | None = None
    store: FeatureStore | None = None


class Sources(NamedTuple):
    """Names of the training images and the queries (None: the bank's), and how they are read.

    `resize` brings images to a size; `caption` is a template for the prompts of images that have none.
    """

    train: str | None = None
    query: str | None = None
    resize: int | None = None
    caption: str | None = None


class Loaded(NamedTuple):
    """Models, what the user called them, and notes on them."""

    models: list[Denoiser]
    names: list[str]
    notes: list[str]


def open_experiment(
    method: str,
    fields: Mapping[str, Any],
    sources: Sources,
    models: Models,
    bank: str | None = None,
    machine: Machine | None = None,
    warn: Warn = to_warnings,
) -> Experiment:
    """Everything that a run needs, opened and checked. What is not named comes from the bank, if there is
    one. `warn` hears of what is not an error, and the experiment keeps it as its notes."""
    machine = machine or Machine()
    available(machine.device)
    opened = open_bank(bank) if bank else None
    built = make(method, fields, opened)
    if opened is not None and reachable_paths(built, opened):
        opened = on_paths(opened, machine.device)
    notes: list[str] = []
    heard = once(warn, notes)  # of two models, or of one folder on both sides
    train, queries = _images(sources, opened, heard)
    loaded = _loaded(models, sources, built, opened, train, machine)
    of_models = [note for model in loaded.models for note in notes_on_conditions(model, train, queries)]
    for note in (*loaded.notes, *of_models):
        heard(note)
    names = {
        "train": sources.train or f"{bank}/train.npz",
        "query": sources.query or f"{bank}/queries.npz",
        "models": loaded.names,
    }
    return Experiment(method, fields, train, queries, loaded.models, opened, names, notes)


def reachable_paths(method: Method, bank: Bank) -> bool:
    """Whether the method needs the paths that made the queries, and the bank's sampler has them (a DDIM path
    has no density)."""
    if not isinstance(method, PathBound) or not method.along_path:
        return False
    return method.measurement != "trajectory" or from_fields(bank.info["recipe"]).sampler == "ddpm"


def retrained_models(bank: Bank | None, models: Models, machine: Machine) -> Loaded:
    """Models of the first of the bank's learning subsets, which are never compared with: from the cache, else
    trained now."""
    if machine.dtype != "float32":
        raise OptionError(
            f"dtype is {machine.dtype}; the retrained models of an ensemble are float32.",
            hint="Leave --dtype out.",
        )
    if bank is None or models.folders:
        raise OptionError(
            "An ensemble takes models retrained on a bank's further subsets; expected a bank, and no model.",
            hint="--ensemble goes with --bank and without --model.",
        )
    rows = _members(bank, models.ensemble or 0)
    recipe, device = from_fields(bank.info["recipe"]), available(machine.device)
    network = trainable(recipe, bank.train.shape[1:], models.store or FeatureStore(default_root()), device)
    trainings = [training_of(network, recipe, bank.subsets, (row, 0)) for row in rows]
    members = [trained(training, bank.train, models.cache, device=device) for training in trainings]
    names = [f"subset {row} of {bank.folder.name}, seed 0" for row in rows]
    return Loaded(members, names, [])


def _members(bank: Bank, count: int) -> range:
    """The rows of the bank's first further subsets, one for each model of an ensemble."""
    rows, further = range(bank.compared, bank.compared + count), len(bank.subsets) - bank.compared
    if count > further:
        raise OptionError(
            f"The ensemble has {count} models; the bank {bank.folder.name} has {further} further subsets.",
            hint=f"Give it more with `headwater bank build {bank.folder} --learning {count}`.",
        )
    return rows


def note_on_halves(dtype: str, device: str) -> list[str]:
    """A note where weights of half precision save memory and no time."""
    if dtype == "float32" or device != "cpu":
        return []
    return [
        f"Weights in {dtype} take half the memory; on the CPU they save time only where the processor "
        f"computes in {dtype}."
        + (" bfloat16 has float32's range, and does not overflow." if dtype == "float16" else "")
    ]


def _images(sources: Sources, bank: Bank | None, warn: Warn) -> tuple[Examples, Examples]:
    """Training images and queries: those named, else the bank's."""
    _check_named(sources, bank)
    resize, caption = sources.resize, sources.caption
    if sources.train is None:
        assert bank is not None
        train = bank.train
    else:
        train = open_examples(
            sources.train, resize=resize, caption=caption, kind="training images", warn=warn
        )
    if sources.query is None:
        assert bank is not None
        return train, bank.queries
    queries = open_examples(sources.query, resize=resize, kind="queries", warn=warn)
    queries = labelled_like(queries, train, warn)  # a template may read the labels
    return train, queries if caption is None else captioned(queries, caption, "queries", warn)


def _check_named(sources: Sources, bank: Bank | None) -> None:
    """Raise an OptionError, before anything is opened, for a side or the images of a caption that nobody
    names."""
    if bank is None and (sources.train is None or sources.query is None):
        side, option = ("training images", "--train") if sources.train is None else ("queries", "--query")
        raise OptionError(
            f"No {side} are named.",
            hint=f"{option} is missing. Name a folder of images, an .npz file, or a built-in name such as "
            "digits.",
        )
    if sources.caption is None:
        return
    if sources.train is None and sources.query is None:
        raise OptionError(
            "A caption makes prompts of images that are named, and none are: a bank has its own.",
            hint="--caption goes with --train or --query.",
        )
    names_in(sources.caption)


def _loaded(
    models: Models, sources: Sources, method: Method, bank: Bank | None, train: Examples, machine: Machine
) -> Loaded:
    """The models named, those of the ensemble, or the bank's own."""
    checkpoints = method.checkpoints if isinstance(method, Staged) else 0
    if models.ensemble is not None:
        loaded = retrained_models(bank, models, machine)
        note = "Retrained models have no checkpoints: the final ones alone are used."
        return loaded._replace(notes=[note]) if checkpoints > 1 else loaded
    folders = models.folders or (
        [str(bank.folder / "model")] if bank is not None and sources.train is None else []
    )
    if models.lora is not None and len(folders) != 1:
        raise OptionError(
            f"Adapters change one model, and there are {len(folders)}.", hint="--lora goes with one --model."
        )
    return _opened(models._replace(folders=folders), train.shape[1:], machine, checkpoints)


def _opened(models: Models, size: tuple[int, int], machine: Machine, checkpoints: int) -> Loaded:
    """The models in these folders with their checkpoints, for pictures of this height and width."""
    if not models.folders:
        return Loaded([], [], [])
    folders = [hub.place(folder, hub.pipeline_files) for folder in models.folders]
    notes = [note for folder in folders for note in loading.notes_on(folder)]
    notes += note_on_halves(machine.dtype, machine.device)
    options: dict[str, Any] = {"lora": models.lora, "size": size, "dtype": machine.dtype}
    loaded = [loading.load(folder, available(machine.device), checkpoints, **options) for folder in folders]
    for name, model in zip(models.folders, loaded, strict=True):
        notes += note_on_checkpoints(str(name), model, checkpoints)
    return Loaded(loaded, models.folders, notes)
