"""Commands that make models and pictures: train, sample."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.options import Caption, Device, Dtype, Lora, Resize, Seed, Store, bar, feature_store, note
from headwater.errors import OptionError

app = typer.Typer()


@app.command()
def train(
    data: Annotated[
        str, typer.Option(help="Training images: folder, .npz, hf:name[:split], or a built-in name.")
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write (diffusers format, with checkpoints).")],
    config: Annotated[
        str, typer.Option(help="Named network: digits, cifar, celeba, …-scale-shift.")
    ] = "digits",
    model: Annotated[
        str | None, typer.Option(help="Pipeline, by folder or hub name, to train LoRA weights for.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train adapters of the attention of --model (ArtBench's recipe).")
    ] = False,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters; their α is the same.")] = 128,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps [default: by --epochs].")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data [default: 200, with --lora 100].")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="[default: 128, with --lora 64]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[default: 1e-4, with --lora 3e-4]")] = None,
    dropout: float = 0.1,
    flips: bool = True,
    ema: Annotated[float | None, typer.Option(help="Decay of averaged weights [default: off].")] = None,
    checkpoints: int = 4,
    prediction: Annotated[str, typer.Option(help="epsilon, v_prediction or sample.")] = "epsilon",
    conditional: Annotated[bool, typer.Option("--conditional", help="Condition on the labels.")] = False,
    resize: Resize = None,
    caption: Caption = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the weights of --model, which adapters leave as they are: float32 or bfloat16."
        ),
    ] = "float32",
    store: Store = None,
) -> None:
    """Train a DDPM, or with --lora adapters of a model, with the recipes of the D-TRAK paper.

    Run again, it goes on from its last checkpoint.
    """
    from headwater.data import open_examples
    from headwater.models.adapters import lora_tuning
    from headwater.models.create import network, train_model
    from headwater.models.device import available
    from headwater.models.train import LORA, Recipe

    if lora != (model is not None):
        raise OptionError("--lora and --model belong together: a pipeline, of which adapters are trained.")
    if dtype != "float32" and not lora:
        raise OptionError(
            f"--dtype is {dtype}; all weights are trained, in float32. It is for the frozen weights of "
            "--model --lora."
        )
    options = {"steps": steps, "epochs": epochs, "batch": batch, "learning_rate": learning_rate}
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    changes |= {"dropout": dropout, "flips": flips, "ema": ema, "checkpoints": checkpoints}
    recipe = replace(LORA if lora else Recipe(), **changes)
    examples = open_examples(data, resize=resize, caption=caption, warn=note)
    with bar("training") as tick:
        if model is not None:
            trainable = lora_tuning(
                model, rank, examples.shape[1:], feature_store(store), available(device), dtype
            )
        else:
            trainable = network(config, examples, prediction=prediction, conditional=conditional)
        train_model(trainable, examples, recipe, out, seed, device=available(device), tick=tick, warn=note)
    print(out)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="Model folder, or a name on the hub.")],
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    lora: Lora = None,
    seed: Seed = 0,
    sampler: Annotated[str, typer.Option(help="ddim (η = 0) or ddpm.")] = "ddim",
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps [default: 50 for ddim, all for ddpm].")
    ] = None,
    label: Annotated[
        int | None, typer.Option(help="Class of a conditional model [default: all in turn].")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to make a picture of; several: in turn.")
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance, of models that take prompts; 1: none.")
    ] = 1.0,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Keep the path x_t of every picture.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Generate pictures, each from its own named noise, as 8-bit queries."""
    import numpy as np

    from headwater.diffusion.encoding import notes_on_prompts
    from headwater.disk.npz import write_examples
    from headwater.models import loading
    from headwater.models.device import available
    from headwater.models.generate import Sampling, pictures

    loaded = loading.load(model, available(device), lora=lora, dtype=dtype)
    for text in notes_on_prompts(loaded.text, prompt, "pictures"):
        note(text)
    with bar("sampling") as tick:
        sampling = Sampling(sampler=sampler, steps=steps, guidance=guidance, keep_path=trajectory)
        examples = pictures(loaded, count, seed, sampling=sampling, label=label, prompts=prompt, tick=tick)
    out = out if out.suffix == ".npz" else out.with_name(out.name + ".npz")
    write_examples(out, examples, seed=np.array(seed))
    print(out)
