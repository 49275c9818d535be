"""The output of `headwater plan` for Stable Diffusion 1.5 at 256 pixels with adapters of rank 128: 5,000
images × 10 timesteps.

Run: .venv/bin/python benchmarks/plan_sd.py FOLDER --tokenizer CLIP. Writes benchmarks/results/plan-sd.json.
The pipeline has the real one's configuration and random weights, and is built in FOLDER (4.3 GB); pictures
are CIFAR-2's at 256 pixels. `plan` times a few real gradients, encodings and prompts on this machine and
extrapolates to the whole."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from environment import environment
from headwater.data import open_examples
from headwater.disk.npz import write_examples
from headwater.models import lora

RANK, SIDE = 128, 256
KINDS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
CONFIGURED: dict[str, dict[str, Any]] = {  # Stable Diffusion 1.5's own
    "unet": {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "steps_offset": 1,
    },
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--tokenizer", type=Path, required=True, help="folder of CLIP's tokenizer")
    options = arguments.parse_args()
    if not (options.folder / "adapters").exists():
        build(options.folder, options.tokenizer)
    words = [
        "plan",
        "--method",
        "d-trak",
        "--set",
        "timesteps=10",
        "--set",
        "k=4096",
        "--caption",
        "a {group}",
    ]
    places = {"model": "model", "lora": "adapters", "train": "train.npz", "query": "query.npz"}
    words += [part for name, place in places.items() for part in (f"--{name}", str(options.folder / place))]
    before = environment() | {"threads": 1}
    run = subprocess.run(
        [str(Path(sys.executable).with_name("headwater")), *words], check=True, capture_output=True, text=True
    )
    lines = [line.replace(str(options.folder), "FOLDER") for line in run.stdout.splitlines()]
    path = Path(__file__).parent / "results" / "plan-sd.json"
    path.write_text(json.dumps({"environment": before, "plan": lines}, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(lines))


def build(folder: Path, tokenizer: Path) -> None:
    """Write the pipeline, the adapters and the pictures to `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        parts = {name: kind(**CONFIGURED[name]) for name, kind in KINDS.items()}
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
    words, unet = CLIPTokenizer.from_pretrained(tokenizer), parts["unet"]
    pipeline: Any = StableDiffusionPipeline
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline(**parts, text_encoder=text, tokenizer=words, **none).save_pretrained(folder / "model")
    lora.add(unet, RANK, 0)
    lora.save_adapters(unet, folder / "adapters", "unet")
    write_examples(folder / "train.npz", open_examples("cifar2", resize=SIDE))
    write_examples(folder / "query.npz", open_examples("cifar2:val", resize=SIDE).take(range(4)))


if __name__ == "__main__":
    main()
