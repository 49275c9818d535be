"""Sums with their counts, from which curvature is estimated. Parts from several processes add up; files are
never unpickled."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.disk.files import written
from headwater.errors import ModelError, OptionError, StorageError

Manifest = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sums:
    """Named sums in float64 and their numbers of summands.

    `about`: the settings that all parts must share (model, kind of sum); `parts`: the examples and draws in
    each part."""

    about: Manifest
    parts: tuple[Manifest, ...]
    tensors: Mapping[str, Tensor]
    counts: Mapping[str, int]

    def mean(self, name: str) -> Tensor:
        """The named sum over its count; a sum of nothing is zero."""
        return self.tensors[name] / max(1, self.counts[name])

    def save(self, path: str | Path) -> None:
        """Write as safetensors, with all other fields in its header."""
        write_tensors(
            Path(path), self.tensors, {"about": self.about, "parts": self.parts, "counts": self.counts}
        )


def merged(parts: Sequence[Sums]) -> Sums:
    """The sums over all parts. Parts of another model or kind are refused, and so is a part given twice."""
    first = parts[0]
    for part in parts[1:]:
        _check_same_kind(first.about, part.about)
    manifests = [json.dumps(manifest, sort_keys=True) for part in parts for manifest in part.parts]
    if len(set(manifests)) < len(manifests):
        twice = json.loads(next(manifest for manifest in manifests if manifests.count(manifest) > 1))
        raise OptionError(
            f"The part of {twice['gradients']} gradients of examples {twice['examples'][:8]} is given twice. "
            "Merge each part once."
        )
    tensors = {name: torch.stack([part.tensors[name] for part in parts]).sum(0) for name in first.tensors}
    counts = {name: sum(part.counts[name] for part in parts) for name in first.counts}
    return Sums(first.about, tuple(manifest for part in parts for manifest in part.parts), tensors, counts)


def _check_same_kind(first: Manifest, second: Manifest) -> None:
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        if a != b:
            raise OptionError(
                f"The parts of this curvature differ in {name}: {a} and {b}. Merge parts of one kind only."
            )


def load_sums(path: str | Path, model: Denoiser | None = None) -> Sums:
    """Read a file of `Sums.save`; a file made with another model is a ModelError."""
    tensors, manifest = read_tensors(Path(path), model)
    return Sums(manifest["about"], tuple(manifest["parts"]), tensors, manifest["counts"])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], manifest: Manifest) -> None:
    """Write a safetensors file with `manifest` and a checksum in its header; it appears only when
    complete."""
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.dumps(manifest)
    payload = save(arrays, {"manifest": header, "checksum": checksum(arrays, header)})
    with written(path) as file:
        file.write(payload)


def read_tensors(path: Path, model: Denoiser | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and manifest, verified; with a `model`, also that the file was made with it."""
    tensors, head = _contents(path)
    if checksum(tensors, head["manifest"]) != head.get("checksum"):
        raise StorageError(
            f"The curvature in {path} is damaged (its checksum is wrong). Delete the file and compute it "
            "again."
        )
    manifest = json.loads(head["manifest"])
    if model is not None:
        check_made_with(model, manifest["about"]["model"], f"The curvature in {path} was")
    return tensors, manifest


def _contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that has a manifest."""
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safe_open is no dict)
        json.loads(head["manifest"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"Could not read curvature from {path}: {error}. Expected a file that headwater wrote."
        ) from error
    return tensors, head


def check_made_with(model: Denoiser, fingerprint: str, subject: str) -> None:
    """Raise a ModelError where the `subject` (such as "The factors were") was made with another model."""
    if fingerprint != model.fingerprint:
        raise ModelError(
            f"{subject} made with the model {fingerprint[:12]}; this model is {model.fingerprint[:12]}. "
            "Compute again with this model."
        )


def checksum(tensors: Mapping[str, Tensor], words: str = "") -> str:
    """A hash of all names and numbers, and of `words`."""
    digest = hashlib.blake2b(words.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}".encode())
        digest.update(cast(Any, tensors[name].detach().cpu().contiguous().numpy()))
    return digest.hexdigest()
