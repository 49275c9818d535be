"""Second moments of a layer's sides over all rows and positions, without unfolding what a convolution sees.

A 3×3 convolution's patches overlap: Σ_s x[s+u] x[s+v]ᵀ over positions s depends on the two taps through their displacement v − u
alone, but for what lies in the border's rows and columns that one of them does not reach. So the 81 blocks of its 9c × 9c moment
are made of 13 autocorrelations, their transposes, and strips; and an autocorrelation is what a convolution library calls a weight
gradient, with the input in the place of the output's gradient. Cost: 15 multiplications where unfolding has 81 and a forward
pass 9.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.gradients.layers import Layer

SHIFT = torch.arange(3) - torch.arange(3)[:, None] + 2  # [u, v] → v − u, counted from −2
UNREACHED = {0: -1, 2: 0}  # the row that a kernel's first tap never reaches is the last, and the other way round


def overlaps(layer: Layer) -> bool:
    """Whether a layer is one whose moment is found this way: a convolution 3×3 of stride 1 that keeps the size, or 1×1."""
    if not isinstance(layer.module, nn.Conv2d):
        return False
    conv = layer.module
    shape = conv.kernel_size, conv.padding, conv.dilation
    plain = conv.stride == (1, 1) and conv.padding_mode == "zeros" and conv.groups == 1
    return plain and shape in (((3, 3), (1, 1), (1, 1)), ((1, 1), (0, 0), (1, 1)))


def of_patches(layer: Layer, a: Float[Tensor, "r c h w"]) -> Float[Tensor, "i i"]:
    """Σ over rows and positions of ã ãᵀ, i = c × taps as a weight has them, for a layer that `overlaps`."""
    if cast(nn.Conv2d, layer.module).kernel_size == (1, 1):
        return of_maps(a)
    c, shift = a.shape[1], SHIFT.to(a.device)
    found = correlations(a, 2)[:, :, shift[:, None, :, None], shift[None, :, None, :]]  # [c, c, uy, ux, vy, vx]
    for tap, edge in UNREACHED.items():
        rows, columns = a[:, :, edge][:, :, None], a[:, :, :, edge][:, :, None]
        found[:, :, tap, :, tap] -= correlations(rows, 0)[:, :, 0, shift]
        found[:, :, :, tap, :, tap] -= correlations(columns, 0)[:, :, 0, shift]
        for other, side in UNREACHED.items():
            corner = a[:, :, edge, side]
            found[:, :, tap, other, tap, other] += corner.mT @ corner
    return found.permute(0, 2, 3, 1, 4, 5).reshape(9 * c, 9 * c)


def of_maps(a: Float[Tensor, "r c h w"]) -> Float[Tensor, "c c"]:
    """Σ over rows and positions of a aᵀ."""
    return _weight_gradient(a, a, (1, 1))[:, :, 0, 0]


def correlations(a: Float[Tensor, "r c h w"], down: int) -> Float[Tensor, "c c _ 5"]:
    """Σ_s a[s] a[s+δ]ᵀ for δ of −`down` … `down` and −2 … 2; what lies outside counts as 0.

    Those upwards are the transposes of their opposites.
    """
    below = _weight_gradient(F.pad(a, (2, 2, 0, down)), a, (down + 1, 5))
    return torch.cat([below[:, :, 1:].flip(2, 3).transpose(0, 1), below], 2)


def _weight_gradient(a: Float[Tensor, "r c _ _"], g: Float[Tensor, "r o _ _"], kernel: Sequence[int]) -> Tensor:
    """Σ over rows and positions s of g[s] a[s + tap]ᵀ, by the library's own convolution."""
    weight = a.new_empty(g.shape[1], a.shape[1], *kernel)
    return torch.ops.aten.convolution_backward(g, a, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])[
        1
    ]
