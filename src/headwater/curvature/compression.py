"""Rows of numbers held for many inner products, whole or compressed: each parameter tensor by itself.

float32: unchanged. int8 and int4: an affine map of each tensor, x ≈ (c − zero)·scale with c in 0 … 2^bits − 1
(Mlodozieniec et al. 2025, arXiv:2410.13850, appendix C). svd:r: the best approximation of rank r of each
tensor as a matrix (Grosse et al. 2023, arXiv:2308.03296, section 3.2.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from headwater.errors import OptionError

BITS = {"int8": 8, "int4": 4}


class Piece(NamedTuple):
    """Where a tensor lies in a row: its first coordinate, and its shape as a matrix."""

    first: int
    height: int
    width: int

    @property
    def stop(self) -> int:
        """The coordinate after the last."""
        return self.first + self.height * self.width


@dataclass(frozen=True, eq=False)
class Whole:
    """Rows that are not compressed."""

    rows: Float[Tensor, "q w"]

    @property
    def bytes(self) -> int:
        return self.rows.nbytes

    def restored(self) -> Float[Tensor, "q w"]:
        return self.rows


@dataclass(frozen=True, eq=False)
class Affine:
    """x ≈ (c − zero)·scale, at most half a scale from x. Two codes of four bits share a byte."""

    codes: UInt8[Tensor, "q _"]
    scale: Float[Tensor, "q 1"]
    zero: Float[Tensor, "q 1"]
    bits: int
    width: int

    @classmethod
    def of(cls, rows: Float[Tensor, "q w"], bits: int) -> "Affine":
        """The nearest codes."""
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        scale = (high - low) / (2**bits - 1)
        # a constant is restored exactly
        scale = torch.where(scale > 0, scale, torch.where(low == 0, 1.0, low.abs()))
        zero = -low / scale
        codes = (rows / scale + zero).round().clamp(0, 2**bits - 1).to(torch.uint8)
        if bits == 4:
            codes = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2))
            codes = codes[:, ::2] * 16 + codes[:, 1::2]
        return cls(codes, scale, zero, bits, rows.shape[1])

    @property
    def bytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes + self.zero.nbytes

    def restored(self) -> Float[Tensor, "q w"]:
        codes = self.codes
        if self.bits == 4:
            codes = torch.stack([codes // 16, codes % 16], 2).flatten(1)[:, : self.width]
        return (codes - self.zero) * self.scale


@dataclass(frozen=True, eq=False)
class LowRank:
    """X ≈ left right, from the r largest singular values of each row's matrix."""

    left: Float[Tensor, "q o r"]
    right: Float[Tensor, "q r i"]

    @classmethod
    def of(cls, matrices: Float[Tensor, "q o i"], rank: int) -> "LowRank":
        """The best approximation in Frobenius norm."""
        u, s, v = torch.linalg.svd(matrices, full_matrices=False)
        return cls(u[:, :, :rank] * s[:, None, :rank], v[:, :rank].contiguous())

    @property
    def bytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    def restored(self) -> Float[Tensor, "q w"]:
        return (self.left @ self.right).flatten(1)


Compressed = Whole | Affine | LowRank


@dataclass(frozen=True, eq=False)
class Held:
    """Rows, tensor by tensor."""

    pieces: Sequence[tuple[Piece, Compressed]]

    @property
    def bytes(self) -> int:
        """Memory of all pieces."""
        return sum(tensor.bytes for _, tensor in self.pieces)

    def restored(self) -> Float[Tensor, "q p"]:
        """The rows, up to the error of the compression."""
        return torch.cat([tensor.restored() for _, tensor in self.pieces], 1)

    def times(self, v: Float[Tensor, "b p"]) -> Float[Tensor, "q b"]:
        """⟨row, v⟩ for every row and every v, restoring one tensor at a time."""
        products = [tensor.restored() @ v[:, piece.first : piece.stop].mT for piece, tensor in self.pieces]
        return torch.stack(products).sum(0)


def held(rows: Float[Tensor, "q p"], pieces: Sequence[Piece], compression: str) -> Held:
    """The rows, held in the format `compression`: float32, int8, int4 or svd:RANK."""
    rank = rank_of(compression)
    if compression == "float32":
        return Held([(Piece(0, 1, rows.shape[1]), Whole(rows))])
    tensors: list[tuple[Piece, Compressed]] = []
    for piece in pieces:
        part = rows[:, piece.first : piece.stop]
        if rank is None:
            tensors.append((piece, Affine.of(part, BITS[compression])))
        elif rank * (piece.height + piece.width) < piece.height * piece.width:
            tensors.append((piece, LowRank.of(part.reshape(-1, piece.height, piece.width), rank)))
        else:  # the two factors would be larger than the tensor
            tensors.append((piece, Whole(part.clone())))
    return Held(tensors)


def rank_of(compression: str) -> int | None:
    """The rank in svd:RANK, None for float32, int8 and int4. An unknown compression is an OptionError."""
    name, _, rank = compression.partition(":")
    if compression in ("float32", *BITS):
        return None
    if name == "svd" and rank.isascii() and rank.isdigit() and int(rank) > 0:
        return int(rank)
    raise OptionError(
        f"compression is '{compression}'; expected float32, int8, int4 or svd:RANK, such as svd:8."
    )
