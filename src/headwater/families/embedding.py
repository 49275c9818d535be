"""Pictures as vectors, to measure similarity: a CLIP by folder or hub name, or a user's own function."""

import hashlib
import importlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from headwater.disk.files import check_hub_cache, expanded
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, ModelError, NonFiniteError, OptionError, UserError
from headwater.examples import Examples
from headwater.models.folders import weight_bytes

EXAMPLE = "openai/clip-vit-base-patch32"
BLOCK = 1024  # pictures whose vectors are written to disk together


@dataclass(frozen=True)
class Embedder:
    """A function from 8-bit pictures [b, h, w, c] to vectors [b, d], called on a batch at a time. Tables
    print its name.

    With a `fingerprint`, which must change whenever the vectors do, vectors are stored; without, computed
    every time."""

    name: str
    embed: Callable[[UInt8[np.ndarray, "b h w c"]], Any]
    batch: int = 64
    fingerprint: str | None = None

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]:
        """One vector for each picture, of any length. NaN or infinity is a NonFiniteError."""
        vectors = np.concatenate(
            [self._vectors(images[low : low + self.batch]) for low in range(0, len(images), self.batch)]
        )
        if not np.isfinite(vectors).all():
            row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise NonFiniteError(f"{self.name} gave NaN or infinity for picture {row}. Look at its weights.")
        return vectors

    def _vectors(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b d"]:
        try:
            output = self.embed(images)
        except UserError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise ModelError(
                f"{self.name} failed on pictures {list(images.shape)} ({type(error).__name__}: {error})."
            ) from error
        vectors = output.detach().cpu().float().numpy() if isinstance(output, Tensor) else np.asarray(output)
        if vectors.ndim != 2 or len(vectors) != len(images) or vectors.dtype.kind not in "fiu":
            raise ModelError(
                f"{self.name} gave {vectors.dtype} {list(vectors.shape)} for {len(images)} pictures; "
                f"expected numbers [{len(images)}, d], one vector for each picture."
            )
        return vectors.astype(np.float32)


def embedder(name: str, device: str = "cpu") -> Embedder:
    """The embedder called `name`: a CLIP of `transformers`, by folder or hub name, or a user's function or
    Embedder, by `package.module:name`.

    CLIP gives its projected image features, not normalised, in float32. Its weights are read from safetensors
    only."""
    folder = expanded(name)
    if folder.is_dir():
        return _clip(name_of(name), str(folder), device)
    if ":" in name:
        embed = _imported(name)
        return embed if isinstance(embed, Embedder) else Embedder(name, embed)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"There is no folder {name}. Expected a CLIP's folder, or its name on the hub, such as {EXAMPLE}."
        )
    check_hub_cache()
    return _clip(name_of(name), name, device)


@lru_cache(maxsize=1)
def loaded(name: str, device: str) -> Embedder:
    """The embedder called `name`, loaded once for training images and queries."""
    return embedder(name, device)


def name_of(name: str) -> str:
    """The embedder's name in tables; no weights are read."""
    folder = expanded(name)
    if folder.is_dir():
        return f"CLIP {folder.resolve().name}"
    if ":" in name:
        embed = _imported(name)
        return embed.name if isinstance(embed, Embedder) else name
    return f"CLIP {name}"


def embeddings(embedder: Embedder, examples: Examples, store: FeatureStore) -> Float32[np.ndarray, "n d"]:
    """The vector of each picture, through the store if the embedder has a fingerprint."""
    if embedder.fingerprint is None:
        return embedder(examples.images)
    settings = {"embedder": embedder.name, "fingerprint": embedder.fingerprint}

    def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b d"]]:
        size = store.rows_together(BLOCK)
        for low in range(0, len(positions), size):
            yield embedder(examples.images[positions[low : low + size]])

    return store.rows(settings, examples.hashes, compute)


def cosine(a: Float32[np.ndarray, "n d"], b: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    """cos(aᵢ, bᵢ) = aᵢ·bᵢ / |aᵢ||bᵢ|, row by row. A vector of zeros has no direction: NonFiniteError."""
    lengths = np.linalg.norm(a.astype(np.float64), axis=1) * np.linalg.norm(b.astype(np.float64), axis=1)
    if not lengths.all():
        raise NonFiniteError(
            f"A vector of pair {int(np.argmin(lengths))} is zero: it has no cosine with another."
        )
    return (np.einsum("nd,nd->n", a, b, dtype=np.float64) / lengths).astype(np.float32)


def _imported(name: str) -> Embedder | Callable[[UInt8[np.ndarray, "b h w c"]], Any]:
    module, _, attribute = name.partition(":")
    try:
        embed = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises
        raise OptionError(
            f"Could not import the embedder '{name}': {error}. Expected package.module:function."
        ) from error
    if not callable(embed):
        raise OptionError(
            f"{name} is a {type(embed).__name__}; expected a function from uint8 pictures [b, h, w, c] to "
            "[b, d]."
        )
    return embed


def _clip(name: str, source: str, device: str) -> Embedder:
    _check_installed(source)
    kind = _config(source, "config.json").get("model_type")
    if kind != "clip":
        raise ModelError(f"{source} is a model of type {kind}; expected clip, such as {EXAMPLE}.")
    prepare = _preparation(source)
    vision, projection = (part.to(device).eval() for part in _parts(source))

    @torch.inference_mode()
    def features(images: UInt8[np.ndarray, "b h w c"]) -> Tensor:
        pixels = torch.stack([prepare(image) for image in images])
        return projection(vision(pixel_values=pixels.to(device)).pooler_output)

    return Embedder(name, features, fingerprint=_fingerprint(prepare, vision, projection))


def _check_installed(source: str) -> None:
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(
            f"CLIP {source} needs the `transformers` library, which is not installed: pip install "
            "'headwater[clip]'."
        ) from error


def _fingerprint(prepare: "_Preparation", *parts: torch.nn.Module) -> str:
    digest = hashlib.blake2b(repr(prepare).encode(), digest_size=16)
    for part in parts:
        for weight in part.state_dict().values():
            digest.update(weight_bytes(weight))
    return digest.hexdigest()


def _parts(source: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """CLIP's image encoder and its projection, in float32."""
    model, missing = _weights(source)
    if missing:
        raise ModelError(
            f"The weights of CLIP {source} lack {len(missing)} tensors, such as {min(missing)}. Copy or "
            "download it again."
        )
    return model.vision_model, model.visual_projection


def _weights(source: str) -> tuple[Any, Collection[str]]:
    """The CLIP with the weights in its folder, and the names of those that the folder lacks."""
    from transformers import CLIPModel

    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        with torch.random.fork_rng(devices=[]):  # the global generator would draw missing weights
            loaded: Any = CLIPModel.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The weights of CLIP {source} could not be read ({_one_line(error)}). Expected a complete "
            "model.safetensors that fits its config.json; pickled weights (.bin) are never loaded, convert "
            "them first."
        ) from error
    model, report = loaded
    return model, report["missing_keys"]


@dataclass(frozen=True)
class _Preparation:
    """CLIP's input: shorter side resized to `size`, centre cropped, colours standardised, grey turned into
    RGB."""

    size: int
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Image.Resampling

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "_Preparation":
        """The preparation that CLIP's configuration asks for."""
        size, crop = config["size"], config["crop_size"]
        return cls(
            size if isinstance(size, int) else size["shortest_edge"],
            (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"]),
            tuple(config["image_mean"]),
            tuple(config["image_std"]),
            Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
        )

    def __call__(self, image: UInt8[np.ndarray, "h w c"]) -> Float32[Tensor, "3 y x"]:
        if image.shape[2] not in (1, 3):
            raise DataError(f"Pictures have {image.shape[2]} channels; CLIP expects grey or RGB, 1 or 3.")
        picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        short, (height, width) = min(picture.size), self.crop
        picture = picture.resize(
            (self.size * picture.width // short, self.size * picture.height // short), self.resample
        )
        x, y = (picture.width - width) // 2, (picture.height - height) // 2
        pixels = np.asarray(picture.crop((x, y, x + width, y + height)), np.float32) / 255
        return torch.from_numpy(
            (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        ).permute(2, 0, 1)


def _preparation_config(source: str) -> dict[str, Any]:
    """`preprocessor_config.json`, or the part of the file where transformers 5 puts it beside a tokenizer."""
    try:
        nested = _config(source, "processor_config.json").get("image_processor")
    except ModelError:
        nested = None
    return nested or _config(source, "preprocessor_config.json")


def _preparation(source: str) -> _Preparation:
    """CLIP's own preparation; a step left out, or a setting that is missing, is a ModelError."""
    config = _preparation_config(source)
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not config.get(step, True):
            raise ModelError(
                f"CLIP {source} asks for {step} = false; expected all steps of CLIP's preparation."
            )
    try:
        return _Preparation.of(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The preparation of CLIP {source} cannot be used ({type(error).__name__}: {error}); expected "
            "size (shortest_edge), crop_size, image_mean and image_std in its preprocessor_config.json."
        ) from error


def _config(source: str, name: str) -> dict[str, Any]:
    from transformers.utils import cached_file

    try:
        path = cached_file(source, name)
        return json.loads(Path(str(path)).read_text())
    except OSError as error:
        raise ModelError(
            f"There is no {name} of CLIP {source} ({_one_line(error)}). Expected a CLIP's folder, or its "
            f"name on the hub, such as {EXAMPLE}."
        ) from error
    except ValueError as error:
        raise ModelError(f"{name} of CLIP {source} is not valid JSON: the file is damaged.") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
