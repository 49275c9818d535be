"""Symmetric operators in an eigenbasis that is a Kronecker product in each block: Σ_blocks (Q_B ⊗ Q_A)
diag(Λ) (Q_B ⊗ Q_A)ᵀ.

Vectors are rows [q, p]. A block's share of one is a matrix V [o, i], and (Q_B ⊗ Q_A)ᵀ v is Q_Bᵀ V Q_A. Once
rotated, every further damping is an element-wise scale. (K-FAC: Martens & Grosse 2015, arXiv:1503.05671;
EK-FAC: George et al. 2018, arXiv:1806.03884.)"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from headwater.errors import NonFiniteError, OptionError
from headwater.linalg.damping import Damping


@dataclass(frozen=True, eq=False)
class Block:
    """One block: `left` is Q_B, `right` is Q_A, `values` are its eigenvalues Λ.

    `columns` says where the matrix V lies in a vector: for each piece of its columns the first coordinate and
    their number, the piece row by row. A weight has one piece, a bias one of a single column, both together
    two. `loose` marks eigenvectors on both sides that rounding tells apart (None: nobody looked)."""

    name: str
    columns: tuple[tuple[int, int], ...]
    left: Float[Tensor, "o o"]
    right: Float[Tensor, "i i"]
    values: Float64[Tensor, "o i"]
    loose: tuple[Bool[Tensor, " o"], Bool[Tensor, " i"]] | None = None

    @property
    def dead(self) -> bool:
        """Whether all eigenvalues are zero, as for a layer that never reaches the output."""
        return not bool(self.values.any())

    @property
    def bias(self) -> bool:
        """Whether the block is a bias alone."""
        return self.name.endswith("bias") and self.values.shape[1] == 1

    def matrix(self, v: Float[Tensor, "q p"]) -> Float[Tensor, "q o i"]:
        """This block's share of each vector."""
        o = len(self.left)
        return torch.cat(
            [v[:, first : first + o * width].reshape(len(v), o, width) for first, width in self.columns], 2
        )

    def write(self, matrices: Float[Tensor, "q o i"], out: Float[Tensor, "q p"]) -> None:
        """Write this block's share of each vector into `out`: the inverse of `matrix`."""
        pieces = matrices.split([width for _, width in self.columns], 2)
        for (first, width), piece in zip(self.columns, pieces, strict=True):
            out[:, first : first + len(self.left) * width] = piece.flatten(1)

    def rotated(self, matrices: Float[Tensor, "q o i"]) -> Float[Tensor, "q o i"]:
        """Q_Bᵀ V Q_A: the eigen-coordinates."""
        return self.left.mT @ matrices @ self.right


@dataclass(frozen=True, eq=False)
class Kronecker:
    """A positive semidefinite operator, block by block. Eigenvectors are in the vectors' dtype, eigenvalues
    in float64.

    A rotation costs o²i + oi² per block and vector, every step after it p. A block whose eigenvalues are all
    zero has no size for a relative damping to be a multiple of: its inverse is 0, for 1/0 would spoil all
    other blocks."""

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        for block in self.blocks:
            if not bool(torch.isfinite(block.values).all()):
                raise NonFiniteError(
                    f"Curvature of {block.name} has an eigenvalue that is not finite. Look at the model's "
                    "weights."
                )

    @cached_property
    def p(self) -> int:
        """The length of vectors."""
        return sum(block.values.numel() for block in self.blocks)

    @property
    def dead(self) -> tuple[str, ...]:
        """The names of the blocks whose eigenvalues are all zero."""
        return tuple(block.name for block in self.blocks if block.dead)

    @cached_property
    def values(self) -> Float64[Tensor, " p"]:
        """Eigenvalues, laid out like `coordinates`."""
        return self.flat(lambda block: block.values)

    def coordinates(self, v: Float[Tensor, "q p"]) -> Float[Tensor, "q p"]:
        """Qᵀv: each block's eigen-coordinates in the block's places. ⟨u, u'⟩ = ⟨v, v'⟩."""
        return self._blockwise(v, lambda block, matrices: block.rotated(matrices))

    def to_parameters(self, u: Float[Tensor, "q p"]) -> Float[Tensor, "q p"]:
        """Qu: from eigen-coordinates to parameters."""
        return self._blockwise(u, lambda block, matrices: block.left @ matrices @ block.right.mT)

    def matvec(self, v: Float[Tensor, "q p"]) -> Float[Tensor, "q p"]:
        """Q Λ Qᵀ v."""
        u = self.coordinates(v)
        return self.to_parameters(u * self.values.to(u))

    def inverse(self, damping: Damping) -> Float64[Tensor, " p"]:
        """1/(Λ + λ), the factor of each eigen-coordinate. A relative λ is a multiple of the block's mean
        eigenvalue.

        Raises an OptionError where it does not exist: without damping on a block with a zero among its
        eigenvalues."""

        def of(block: Block) -> Float64[Tensor, "o i"]:
            shift = _shift(block, damping)
            if block.dead and not shift:
                return torch.zeros_like(block.values)
            rounding = float(block.values.max()) * sum(block.values.shape) * torch.finfo(torch.float64).eps
            if float(block.values.min()) <= rounding and shift <= rounding:
                raise OptionError(
                    f"The curvature of {block.name} is singular and the damping is {damping.value:g}: the "
                    "inverse does not exist. Use a larger damping."
                )
            return 1.0 / (block.values + shift)

        return self.flat(of)

    def shift(self, damping: Damping) -> Float64[Tensor, " p"]:
        """λ of every parameter's block."""
        return self.flat(lambda block: torch.full_like(block.values, _shift(block, damping)))

    def solve(self, v: Float[Tensor, "q p"], damping: Damping) -> Float[Tensor, "q p"]:
        """Q (Λ + λ)⁻¹ Qᵀ v, with λ as in `inverse`."""
        return self.scaled(v, self.inverse(damping))

    def scaled(self, v: Float[Tensor, "q p"], scale: Float64[Tensor, " p"]) -> Float[Tensor, "q p"]:
        """Q diag(scale) Qᵀ v."""
        u = self.coordinates(v)
        return self.to_parameters(u * scale.to(u))

    def _blockwise(
        self, v: Float[Tensor, "q p"], change: Callable[[Block, Tensor], Tensor]
    ) -> Float[Tensor, "q p"]:
        if v.shape[1] != self.p:
            raise OptionError(
                f"The vectors have {v.shape[1]} coordinates; the curvature has {self.p}. Take gradients of "
                "the same parameters."
            )
        out = torch.empty_like(v, dtype=self.blocks[0].left.dtype)
        for block in self.blocks:
            block.write(change(block, block.matrix(v).to(block.left)), out)
        return out

    def flat(self, of: Callable[[Block], Float64[Tensor, "o i"]]) -> Float64[Tensor, " p"]:
        """A number for each element of every block, laid out like `coordinates`."""
        out = self.blocks[0].values.new_empty(1, self.p)
        for block in self.blocks:
            block.write(of(block)[None], out)
        return out[0]


def _shift(block: Block, damping: Damping) -> float:
    return damping.scaled(float(block.values.mean()))


def decomposed(matrix: Float[Tensor, "o o"]) -> tuple[Float64[Tensor, " o"], Float64[Tensor, "o o"]]:
    """Eigenvalues (ascending, not negative) and eigenvectors, in float64: float32 loses the ones below 1e-7
    of the largest."""
    wide = matrix.double()
    values, vectors = torch.linalg.eigh((wide + wide.mT) / 2)
    return values.clamp(min=0.0), vectors.contiguous()


def whole(matrix: Float[Tensor, "p p"], name: str = "all parameters") -> Kronecker:
    """The operator of a full matrix: one block, with Q_A = 1."""
    values, vectors = decomposed(matrix)
    one = torch.ones(1, 1).to(matrix)
    return Kronecker((Block(name, ((0, 1),), vectors.to(matrix), one, values[:, None]),))
