"""The options that several commands share, and what every command does with them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.disk.store import FeatureStore, default_root, unheard
from headwater.workers import Crew

ModelFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Folder of diffusers, or a name on the hub (hf:owner/name); several: an ensemble."
    ),
]
Lora = Annotated[
    str | None,
    typer.Option(help="LoRA weights of the model, as --model: they alone are then its parameters."),
]
Train = Annotated[
    str | None, typer.Option(help="Training images: folder, .npz, hf:name[:split], digits, cifar10, cifar2.")
]
Query = Annotated[str | None, typer.Option(help="Queries: the pictures to explain; as --train.")]
Method = Annotated[
    str, typer.Option(help="Attribution method (see `headwater methods`), or package.module:Class.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A field of the method: field=value. May be repeated.")
]
BankFolder = Annotated[str | None, typer.Option("--bank", help="A bank of retrained models, or `digits`.")]
Seed = Annotated[int, typer.Option(help="Names all random draws.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")]
Dtype = Annotated[
    str,
    typer.Option(help="Of the network's weights: float32, bfloat16 or float16. Adapters stay in float32."),
]
Store = Annotated[
    Path | None, typer.Option(help="Where features are kept [default: $HEADWATER_STORE or the user cache].")
]
StoreDtype = Annotated[
    str, typer.Option("--store-dtype", help="float32, or float16: half the space, at a small recorded error.")
]
Memory = Annotated[
    float,
    typer.Option(
        min=0.01, max=1e6, help="GiB that one pass through the model may take: decides batch sizes."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Compute features in this many processes of one thread [default: in this one]."),
]
Ray = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster that does the jobs (`auto` finds a local one).")
]
Gpus = Annotated[
    float, typer.Option(min=0, max=1e6, help="On a cluster: GPUs for each job, may be a fraction.")
]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes [default: one for each core].")]
ModelCache = Annotated[
    Path | None,
    typer.Option("--models", help="Where trained models are kept [default: beside the features]."),
]
Ensemble = Annotated[
    int | None,
    typer.Option(
        min=1, help="Average over this many models, each retrained on one of the bank's further subsets."
    ),
]
Resize = Annotated[int | None, typer.Option(help="Resize and centre-crop images to this size.")]
Caption = Annotated[
    str | None,
    typer.Option(help="Prompts for images that have none, such as 'a {group} painting'; also {label}, {id}."),
]


def feature_store(
    root: Path | None,
    tick: Any = unheard,
    dtype: str = "float32",
    crew: Crew | None = None,
    memory: float = 1.0,
) -> FeatureStore:
    """The store of features at `root`, else at its usual place."""
    return FeatureStore(root or default_root(), tick, note, dtype, crew, gibibytes(memory))


def gibibytes(count: float) -> int:
    """GiB in bytes."""
    return int(count * 2**30)


def model_cache(root: Path | None, store: FeatureStore) -> Path:
    """The folder that keeps retrained models, else one beside the features of the store."""
    return root or store.root / "models"


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A note on stderr."""
    say(f"Note: {text}")


def bar(title: str) -> Any:
    """A progress bar on stderr."""
    from headwater.cli.progress import progress_bar

    return progress_bar(title)
