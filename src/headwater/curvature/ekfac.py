"""EK-FAC: K-FAC's eigenvectors with corrected eigenvalues, Λ = E[(Q_Bᵀ G Q_A)²], for biases E[(Q_Bᵀ g)²].

Among all operators with these eigenvectors it is nearest to the true block in Frobenius norm. (George et al.
2018, arXiv:1806.03884, equation 4. In Mlodozieniec et al. 2025, arXiv:2410.13850, the plotted results are
made with it.)"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from headwater import seeds
from headwater.curvature.fisher import Fisher, finite, gradient_passes, gradients_that_fit
from headwater.curvature.kfac import Curvature, rounding_share
from headwater.curvature.parameters import factored
from headwater.curvature.sums import Sums, check_made_with
from headwater.diffusion.denoiser import Denoiser
from headwater.errors import ModelError, OptionError
from headwater.examples import Examples
from headwater.gradients.hooks import LayerGradient, as_it_is
from headwater.gradients.layers import Layer
from headwater.linalg.kron import Block

GROUP = 8


def squares(
    model: Denoiser,
    examples: Examples,
    fisher: Fisher,
    basis: Curvature,
    *,
    group: int = GROUP,
    rows: int | None = None,
) -> Sums:
    """The sums behind the mean Λ, one for each block of `basis`.

    Gradients are added up with random signs, `group` at a time, and their sum is rotated and squared. Cross
    terms have mean zero, so the mean stays right, and one rotation, o²i + oi² a layer, serves the whole
    group. The price is noise: with N gradients of kurtosis κ the variance is (2·group + κ − 3)Λ²/N in place
    of (κ − 1)Λ²/N. `group` = 1 uses no signs: the exact mean."""
    model.check(examples)
    if group < 1:
        raise OptionError(f"group is {group}; expected a whole number of 1 or more.")
    check_made_with(model, basis.about["model"], "The eigenvectors were")
    layers = factored(model, basis.pattern).layers
    fit = gradients_that_fit(model, examples, fisher, layers, as_it_is, group)
    height = fit if rows is None else max(group, rows // group * group)
    total = SquareSums(basis, layers, fisher)
    signs, start = _signs(examples, fisher, group).to(model.device, model.dtype), 0
    for batch in gradient_passes(model, examples, fisher, height, group):
        u = len(batch.ids)
        total.begin(signs[start : start + u], -(-u // group))
        batch.stream(model, fisher.measurement, layers, total)
        start += u
    settings = {"fisher": fisher.kind, "average": fisher.average}
    about = {**basis.about, **settings, "what": "squares", "basis": basis.basis}
    part = {"examples": examples.fingerprint, "gradients": start, "group": group, **fisher.manifest()}
    tensors = {name: tensor.cpu() for name, tensor in total.tensors.items()}
    return Sums(about, (part,), tensors, dict.fromkeys(tensors, start))


def _signs(examples: Examples, fisher: Fisher, group: int) -> Tensor:
    """A random sign for each gradient; all positive where groups have one member."""
    n = len(examples) * fisher.draws.count // fisher.rows
    if group == 1:
        return torch.ones(n)
    generator = seeds.generator(fisher.seed, "signs", examples.fingerprint)
    return torch.as_tensor(generator.integers(0, 2, n) * 2 - 1)


def ekfac(basis: Curvature, squares: Sums) -> Curvature:
    """The eigenvectors of `basis` with the eigenvalues in `squares`; zero in a block that is rounding."""
    if squares.about.get("basis") != basis.basis:
        raise ModelError(
            f"These eigenvalues belong to the eigenvectors {str(squares.about.get('basis'))[:12]}, not to "
            f"{basis.basis[:12]}. Compute them for these eigenvectors: an eigendecomposition repeated may "
            "come out differently."
        )
    blocks = tuple(_corrected(block, squares) for block in basis.blocks)
    curvature = Curvature(blocks, {**squares.about, "what": "ek-fac"})
    if len(curvature.dead) == len(blocks):  # as K-FAC's are not: equal gradients with opposite signs
        raise ModelError(
            "Every eigenvalue that EK-FAC measured is zero: gradients of equal images cancel where they are "
            "added up with random signs. Use group 1, or images that differ."
        )
    return curvature


def _corrected(block: Block, squares: Sums) -> Block:
    """The block with its mean square gradient, or with zeros where that is rounding: beside K-FAC's value,
    which knows no cancelling over positions (expand); or of a bias whose cancelled B is zero (reduce)."""
    values, size = squares.mean(block.name).to(block.values), float(block.values.mean())
    rounding = float(values.mean()) <= rounding_share(squares.about) * size if size else block.bias
    return replace(block, values=torch.zeros_like(values) if rounding else values)


class SquareSums:
    """Sums of squares, added to pass by pass."""

    def __init__(self, basis: Curvature, layers: Sequence[Layer], fisher: Fisher) -> None:
        self.tensors = {block.name: torch.zeros_like(block.values) for block in basis.blocks}
        self.blocks = {
            layer.name: [block for block in basis.blocks if block.columns[0][0] in layer.places.values()]
            for layer in layers
        }
        self.r, self.finite = fisher.rows, True
        self.weights, self.groups = torch.zeros(0), 0  # of the present pass

    def begin(self, signs: Float[Tensor, " u"], groups: int) -> None:
        """Start a pass of u gradients, added up with these signs in this number of groups."""
        self.weights, self.groups = signs.repeat_interleave(self.r) / self.r, groups

    def visit(self, gradient: LayerGradient) -> None:
        layer = gradient.layer
        signed = [(a, g * self.weights.view(-1, *[1] * (g.ndim - 1))) for a, g in gradient.sides]
        parts = {
            layer.places[part]: rows for part, rows in LayerGradient(layer, signed).parameters(self.groups)
        }
        for block in self.blocks[layer.name]:
            pieces = [
                parts[first].view(self.groups, len(block.left), width) for first, width in block.columns
            ]
            sums = block.rotated(torch.cat(pieces, 2).to(block.left)).square().sum(0)
            self.finite = self.finite and finite(sums)
            self.tensors[block.name] += sums
