"""Words of the command line to objects: sources opened, models loaded, a method made, everything checked."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater.attribution.experiment import Run
from headwater.attribution.experiment import device as checked
from headwater.bank import Bank, open_bank
from headwater.data import open_examples
from headwater.data.template import captioned, names_in
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import OptionError
from headwater.examples import Examples, labelled_like
from headwater.methods import make, method_class
from headwater.models import hub, loading
from headwater.models.cache import trained
from headwater.retraining.jobs import trainable, training_of
from headwater.retraining.queries import on_paths
from headwater.retraining.recipe import from_fields
from headwater.retraining.workplace import Workplace, workplace
from headwater.workers import Cluster, Crew, Pool

if TYPE_CHECKING:
    from headwater.families.embedding import Embedder


class Machine(NamedTuple):
    """Where the models run, the GiB that one pass through them may take, and the dtype of their weights."""

    device: str
    memory: float
    dtype: str = "float32"


class Models(NamedTuple):
    """Whose gradients are taken: models by folder or hub name, or an `ensemble` of so many retrained on a bank's further subsets.

    `kept` is where retrained models are kept; `lora` adapters that were trained on the model, named alike. `store` holds the
    latents and embedded prompts that retrained models are trained on (None: the usual one).
    """

    folders: list[str]
    ensemble: int | None = None
    kept: Path | None = None
    lora: str | None = None
    store: FeatureStore | None = None


class Reading(NamedTuple):
    """How images are read: brought to a size, and a template for the prompts of those that have none."""

    resize: int | None = None
    caption: str | None = None


AS_THEY_ARE = Reading()
POINTED = r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?"  # JSON wants digits on both sides of the point


def parse(text: str) -> Any:
    """The value of a `--set`: JSON if it parses, a number such as .5, else a list if there are commas, else a word."""
    if re.fullmatch(POINTED, text):
        return float(text)
    try:
        return json.loads(text)
    except ValueError:
        return [parse(part.strip()) for part in text.split(",")] if "," in text else text


def as_list(text: str) -> list[Any]:
    """The values of a `--values`."""
    value = parse(text)
    return value if isinstance(value, list) else [value]


def fields_of(method: str, settings: list[str], seed: int | None) -> dict[str, Any]:
    """The fields that `--set` and `--seed` give, checked. A method that draws nothing takes any seed."""
    fields = dict(_assignment(text) for text in settings)
    if seed is not None and fields.get("seed", seed) != seed:
        raise OptionError(f"--seed is {seed} and --set seed={fields['seed']}; expected one of them.")
    if seed is not None and "seed" in method_class(method).__dataclass_fields__:
        fields["seed"] = seed
    make(method, fields)
    return fields


def experiment(
    method: str,
    fields: dict[str, Any],
    train: str | None,
    query: str | None,
    models: Models,
    bank: str | None,
    machine: Machine,
    reading: Reading = AS_THEY_ARE,
) -> Run:
    """Everything a run needs, opened and checked. What is not named comes from the bank, if there is one."""
    checked(machine.device)
    opened = open_bank(bank) if bank else None
    made = make(method, fields, opened)
    if opened is not None and reachable_paths(made, opened):
        opened = on_paths(opened, checked(machine.device))
    if opened is None and (train is None or query is None):
        missing = "--train" if train is None else "--query"
        raise OptionError(f"{missing} is missing. Name a folder of images, an .npz file, or a built-in name such as digits.")
    if train is None and query is None and reading.caption is not None:
        raise OptionError(
            "--caption makes prompts of images that --train and --query name; expected one of these, for a bank has its own."
        )
    examples = opened.train if train is None and opened else read(train or "", reading, "training images")
    queries = opened.queries if query is None and opened else explained(query or "", examples, reading)
    folders = models.folders or ([str(opened.folder / "model")] if opened and train is None else [])
    if models.ensemble is None:
        if models.lora is not None and len(folders) != 1:
            raise OptionError(f"--lora changes one model, and there are {len(folders)}. Name one with --model.")
        found = _Found(folders, models.lora, examples.shape[1:])
        (loaded, notes), names = _models(found, machine, getattr(made, "checkpoints", 0)), folders
    else:
        (loaded, names), notes = retrained(opened, models, models.ensemble, machine), []
        if getattr(made, "checkpoints", 0) > 1:
            notes = [told("Of retrained models no checkpoints are kept: the final ones alone are used.")]
    sources = {"train": train or f"{bank}/train.npz", "query": query or f"{bank}/queries.npz", "models": names}
    return Run(method, fields, examples, queries, loaded, opened, sources, notes)


def explained(query: str, train: Examples, reading: Reading) -> Examples:
    """The queries, with the training set's labels before a template reads them."""
    queries = labelled_like(open_examples(query, resize=reading.resize), train)
    return _captioned(queries, reading, "queries")


def read(source: str, reading: Reading, what: str) -> Examples:
    """The images that `source` names, with prompts by the template if they have none."""
    if reading.caption is not None:
        names_in(reading.caption)  # before anything is opened
    return _captioned(open_examples(source, resize=reading.resize), reading, what)


def _captioned(examples: Examples, reading: Reading, what: str) -> Examples:
    if reading.caption is None:
        return examples
    if examples.prompts is not None:
        told(f"The {what} have prompts of their own, such as '{examples.prompts[0]}': --caption changes none of them.")
    return captioned(examples, reading.caption)


def reachable_paths(method: Any, bank: Bank) -> bool:
    """Whether the method needs the paths that made the queries, and the bank's sampler has them (a DDIM path has no density)."""
    if not getattr(method, "along_path", False):
        return False
    return method.measurement != "trajectory" or from_fields(bank.info["recipe"]).sampler == "ddpm"


def retrained(bank: Bank | None, models: Models, count: int, machine: Machine) -> tuple[list[Denoiser], list[str]]:
    """Models of the first of the bank's further subsets, which are never compared with: those kept, else trained now."""
    if machine.dtype != "float32":
        raise OptionError(f"--dtype is {machine.dtype}; models retrained for --ensemble are of float32. Leave it out.")
    if bank is None or models.folders:
        raise OptionError("--ensemble takes models retrained on a bank's further subsets; expected --bank and no --model.")
    rows = range(bank.compared, bank.compared + count)
    if rows.stop > len(bank.subsets):
        raise OptionError(
            f"--ensemble is {count}; the bank {bank.folder.name} has {len(bank.subsets) - bank.compared} further subsets. Give it "
            f"more with `headwater bank build {bank.folder} --learning {count}`."
        )
    recipe, device = from_fields(bank.info["recipe"]), checked(machine.device)
    network = trainable(recipe, bank.train.shape[1:], models.store or FeatureStore(default_root()), device)
    trainings = [training_of(network, recipe, bank.subsets, (row, 0)) for row in rows]
    found = [trained(each, bank.train, models.kept, device=device) for each in trainings]
    memory = int(machine.memory * 2**30)
    return [replace(model, memory=memory) for model in found], [f"subset {row} of {bank.folder.name}, seed 0" for row in rows]


def bank_place(
    workers: int | None, ray: str | None, gpus: float, device: str, models: Path | None, store: FeatureStore | None = None
) -> Workplace:
    """Processes of this machine to train a bank, or a Ray cluster (where the device is not looked for here)."""
    jobs = crew(workers, ray, gpus)
    return workplace(device if ray is not None else checked(device), jobs, models, store)


def crew(workers: int | None, ray: str | None, gpus: float) -> Crew | None:
    """Processes of this machine, or a Ray cluster; None if neither is asked for."""
    if ray is not None and workers is not None:
        raise OptionError("Both --ray and --workers are given; expected one: a cluster knows how many jobs it can do at once.")
    if ray is not None:
        return Cluster(ray, gpus)
    return None if workers is None else Pool(workers)


def embedding(name: str | None, device: str) -> "Embedder | None":
    """The embedder of that name, if one is asked for."""
    if name is None:
        return None
    from headwater.families.embedding import embedder

    return embedder(name, checked(device))


class _Found(NamedTuple):
    """Folders of models, and of adapters of one, and the height and width of the pictures they are asked about."""

    folders: list[str]
    lora: str | None
    size: tuple[int, int]


def _models(what: _Found, machine: Machine, checkpoints: int) -> tuple[list[Denoiser], list[str]]:
    folders = what.folders
    if not folders:
        return [], []
    opened = [hub.place(folder, hub.pipeline) for folder in folders]
    notes = [note for folder in opened for note in loading.notes_on(folder)] + note_on_halves(machine.dtype, machine.device)
    device, memory = checked(machine.device), int(machine.memory * 2**30)
    loaded = [loading.load(folder, device, checkpoints, lora=what.lora, size=what.size, dtype=machine.dtype) for folder in opened]
    few = "{} has {} checkpoints of its own, in `checkpoints/step-*` in it or beside it: {}."
    for folder, model in zip(folders, loaded, strict=True):
        if len(model.checkpoints) < checkpoints:
            instead = "those are used" if model.checkpoints else "the final model alone is used"
            notes.append(few.format(folder, len(model.checkpoints) or "no", instead))
    for note in notes:
        told(note)
    earlier = [tuple(replace(each, memory=memory) for each in model.checkpoints) for model in loaded]
    return [replace(model, memory=memory, checkpoints=each) for model, each in zip(loaded, earlier, strict=True)], notes


def note_on_halves(dtype: str, device: str) -> list[str]:
    """What is to be told of half precision on this device."""
    if dtype == "float32" or device != "cpu":
        return []
    return [
        f"Weights in {dtype} take half the memory; on the CPU they save time only where the processor computes in {dtype}."
        + (" bfloat16 has float32's range, and does not overflow." if dtype == "float16" else "")
    ]


def told(note: str) -> str:
    """The note, which whoever looks on has seen."""
    print(f"Note: {note}", file=sys.stderr)
    return note


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OptionError(f"--set {text}: expected field=value, such as --set k=2048.")
    return name.strip(), parse(value.strip())
