"""K-FAC: each layer's Gauss–Newton block as a Kronecker product, G_l ≈ B ⊗ A, in its eigenbasis.

(Martens & Grosse 2015, arXiv:1503.05671; for convolutions Grosse & Martens 2016, arXiv:1602.01407; for
diffusion models Mlodozieniec et al. 2025, arXiv:2410.13850, equation 12.) Exact for a linear layer whose
inputs are independent of its output gradients: the last layer of a linear model, or a single draw of a single
example without weight sharing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.curvature.parameters import BlockPlace, factored
from headwater.curvature.sums import Sums, check_made_with, checksum, read_tensors, write_tensors
from headwater.diffusion.denoiser import Denoiser
from headwater.errors import ModelError
from headwater.linalg.kron import Block, Kronecker, decomposed

# sums that cancel leave (1 … 3)·eps of what is added up: measured on attention in four dtypes
ROUNDING = 32

Eigenbasis = tuple[Tensor, Tensor]  # values and vectors


@dataclass(frozen=True, eq=False)
class Curvature(Kronecker):
    """K-FAC or EK-FAC of a model. Vectors are gradients of the parameters that match `pattern`, in the
    model's order."""

    about: Mapping[str, Any]

    @property
    def pattern(self) -> str:
        """The parameters with curvature: `gradients(…, pattern=curvature.pattern)` gives its vectors."""
        return self.about["parameters"]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parameters of the pattern without curvature: norms, embeddings and other layers."""
        return tuple(self.about["left_out"])

    @cached_property
    def basis(self) -> str:
        """A hash of the eigenvectors."""
        return checksum(
            {name: tensor for name, tensor in self._tensors().items() if not name.endswith("/values")}
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the operator."""
        return checksum(self._tensors())

    def save(self, path: str | Path) -> None:
        """Write as safetensors: each eigenvector matrix once, eigenvalues, and the place of each block."""
        blocks = [
            {"name": block.name, "columns": block.columns, **self._sides()[block.name]}
            for block in self.blocks
        ]
        write_tensors(Path(path), self._tensors(), {"about": dict(self.about), "blocks": blocks})

    def _sides(self) -> dict[str, dict[str, str]]:
        """The names of each block's eigenvectors in the file: a weight and its bias share their left ones."""
        names: dict[int, str] = {}
        return {
            block.name: {
                side: names.setdefault(id(tensor), f"{block.name}/{side}")
                for side, tensor in (("left", block.left), ("right", block.right))
            }
            for block in self.blocks
        }

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for block in self.blocks:
            names = self._sides()[block.name]
            tensors |= {
                names["left"]: block.left,
                names["right"]: block.right,
                f"{block.name}/values": block.values,
            }
        return tensors


def load_curvature(path: str | Path, model: Denoiser | None = None) -> Curvature:
    """Read a file of `Curvature.save` onto the model's device; a file made with another model is a
    ModelError."""
    tensors, manifest = read_tensors(Path(path), model)
    if model is not None:
        tensors = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    blocks = tuple(
        Block(
            entry["name"],
            tuple((first, width) for first, width in entry["columns"]),
            tensors[entry["left"]],
            tensors[entry["right"]],
            tensors[f"{entry['name']}/values"],
        )
        for entry in manifest["blocks"]
    )
    return Curvature(blocks, manifest["about"])


def rounding_share(about: Mapping[str, Any]) -> float:
    """The share of its uncancelled size below which a mean square is rounding: (ROUNDING eps)² of the model's
    dtype."""
    return (ROUNDING * torch.finfo(getattr(torch, about["dtype"].removeprefix("torch."))).eps) ** 2


def cancelled(factors: Sums, name: str) -> bool:
    """Whether this factor is a B of reduce whose sums over positions cancel to rounding."""
    size = f"{name.removesuffix('/B')}/size"
    if not name.endswith("/B") or size not in factors.tensors:
        return False
    return float(factors.mean(name).trace()) <= rounding_share(factors.about) * float(factors.mean(size))


def kfac(model: Denoiser, factors: Sums) -> Curvature:
    """Q_B, Q_A and Λ = λ_B λ_Aᵀ of every block, by float64 eigendecompositions: o³ + i³ a layer.

    Unless `joint`, a bias is a block of its own: A = 1, and B shared with its weight. A B that is nothing but
    rounding is zero (`cancelled`).
    """
    check_made_with(model, factors.about["model"], "The factors were")
    chosen = factored(model, factors.about["parameters"])
    sides = _eigenbases(model, factors)
    blocks = tuple(_block(place, sides) for place in chosen.places(factors.about["joint"]))
    curvature = Curvature(blocks, {**factors.about, "what": "k-fac"})
    if len(curvature.dead) == len(blocks):
        raise ModelError(
            "Every layer's curvature is zero: no gradient comes back from the model's output to "
            f"{', '.join(place.name for place in chosen.places(False)[:3])}. Expected a model that uses its "
            "parameters."
        )
    return curvature


def _eigenbases(model: Denoiser, factors: Sums) -> dict[str, Eigenbasis]:
    """Eigenvalues (float64) and eigenvectors of every A and B."""
    dtype, bases = torch.promote_types(model.dtype, torch.float32), {}
    for name in factors.tensors:
        if not name.endswith("/size"):
            values, vectors = decomposed(factors.mean(name).to(model.device))
            bases[name] = values * (not cancelled(factors, name)), vectors.to(dtype)
    return bases


def _block(place: BlockPlace, bases: Mapping[str, Eigenbasis]) -> Block:
    outputs, output_vectors = bases[f"{place.layer}/B"]
    alone = sum(width for _, width in place.columns) == 1 and place.name.endswith("bias")
    one = outputs.new_ones(1), output_vectors.new_ones(1, 1)
    inputs, input_vectors = one if alone else bases[f"{place.layer}/A"]
    return Block(place.name, place.columns, output_vectors, input_vectors, outputs[:, None] * inputs)
