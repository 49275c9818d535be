"""Second moments of a layer's sides over all rows and positions, without unfolding a convolution's inputs.

A 3×3 convolution's patches overlap: Σ_s x[s+u] x[s+v]ᵀ over positions s depends on the two taps only through
their displacement v − u, except for border rows and columns that one of the taps does not reach. So the 81
blocks of the 9c × 9c moment are made of 13 autocorrelations, their transposes, and strips; and all
autocorrelations come from one product of Fourier transforms. Cost: about 2 multiplications a position and
pair of channels, where unfolding takes 81 and a forward pass 9. The blocks are assembled once, after the last
sum."""

from collections.abc import Iterator
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.gradients.layers import Layer

# displacements; the rest mirror them
AHEAD = [(0, dx) for dx in range(3)] + [(dy, dx) for dy in (1, 2) for dx in range(-2, 3)]
SHIFT = torch.arange(3) - torch.arange(3)[:, None] + 2  # [u, v] → v − u, counted from −2
UNREACHED = {0: -1, 2: 0}  # by tap of a kernel: the row that it never reaches
EDGES = [(axis, tap) for axis in (0, 1) for tap in UNREACHED]
CORNERS = [(y, x) for y in UNREACHED for x in UNREACHED]


def overlaps(layer: Layer) -> bool:
    """Whether no unfolding is needed: a 3×3 convolution of stride 1 that keeps the size, or a 1×1
    convolution."""
    if not isinstance(layer.module, nn.Conv2d):
        return False
    conv = layer.module
    shape = conv.kernel_size, conv.padding, conv.dilation
    plain = conv.stride == (1, 1) and conv.padding_mode == "zeros" and conv.groups == 1
    return plain and shape in (((3, 3), (1, 1), (1, 1)), ((1, 1), (0, 0), (1, 1)))


def summed(layer: Layer, a: Float[Tensor, "r c h w"]) -> Float[Tensor, "_ c c"]:
    """The sums over rows and positions that give the moment of a layer that `overlaps`.

    Autocorrelations of the maps and of their first and last rows and columns, and the moments of their
    corners."""
    if cast(nn.Conv2d, layer.module).kernel_size == (1, 1):
        return of_maps(a)[None]
    lines = [a[:, :, UNREACHED[tap]] if axis == 0 else a[:, :, :, UNREACHED[tap]] for axis, tap in EDGES]
    corners = [a[:, :, UNREACHED[y], UNREACHED[x]] for y, x in CORNERS]
    along = [product for line in lines for product in _along(line)]
    return torch.cat([correlations(a), torch.stack([*along, *(corner.mT @ corner for corner in corners)])])


def assembled(layer: Layer, sums: Float[Tensor, "_ c c"]) -> Float[Tensor, "i i"]:
    """Σ ã ãᵀ from the sums of `summed`; i = c × taps, in the order of a weight."""
    if len(sums) == 1:
        return sums[0]
    c, shift = sums.shape[1], SHIFT.to(sums.device)
    inner, edges, corners = sums.split([len(AHEAD), 3 * len(EDGES), len(CORNERS)])
    every = sums.new_empty(5, 5, c, c)
    for (dy, dx), block in zip(AHEAD, inner, strict=True):
        every[dy + 2, dx + 2], every[2 - dy, 2 - dx] = block, block.mT
    out = every[shift[:, None, :, None], shift[None, :, None, :]]  # [uy, ux, vy, vx, c, c]
    for (axis, tap), (none, one, two) in zip(EDGES, edges.split(3), strict=True):
        along = torch.stack([two.mT, one.mT, none, one, two])[shift]
        (out[tap, :, tap] if axis == 0 else out[:, tap, :, tap]).sub_(along)
    for (y, x), corner in zip(CORNERS, corners, strict=True):
        out[y, x, y, x] += corner
    return out.permute(4, 0, 1, 5, 2, 3).reshape(9 * c, 9 * c)


def of_maps(a: Float[Tensor, "r c h w"]) -> Float[Tensor, "c c"]:
    """Σ a aᵀ over rows and positions."""
    weight = a.new_empty(a.shape[1], a.shape[1], 1, 1)  # the weight gradient of a 1×1 convolution, by torch
    one = torch.ops.aten.convolution_backward(
        a, a, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    )
    return one[1][:, :, 0, 0]


def _along(line: Float[Tensor, "r c w"]) -> Iterator[Float[Tensor, "c c"]]:
    """The autocorrelations of lines at displacements 0, 1 and 2."""
    columns = line.permute(2, 0, 1).contiguous()
    for dx in range(3):
        yield columns[: max(0, len(columns) - dx)].flatten(0, 1).mT @ columns[dx:].flatten(0, 1)


def correlations(a: Float[Tensor, "r c h w"]) -> Float[Tensor, "δ c c"]:
    """Σ_s a[s] a[s+δ]ᵀ for the displacements AHEAD, with zeros outside the maps.

    By the correlation theorem: the Fourier transform is the product X̄_f X_fᵀ. The padding keeps sums from
    wrapping."""
    r, c = a.shape[:2]
    h, w = a.shape[2] + 2, a.shape[3] + 2
    spectrum = (
        torch.view_as_real(torch.fft.rfft2(a, (h, w))).reshape(r * c, -1).mT.contiguous().view(-1, 2, r, c)
    )
    both, real, imaginary = spectrum.flatten(1, 2), spectrum[:, 0], spectrum[:, 1]
    even = (both.mT @ both).flatten(1)
    odd = (real.mT @ imaginary).flatten(1)  # less its transpose: the imaginary part of the product
    cosines, sines = (part.to(a) for part in _waves(h, w))
    turned = (sines @ odd).view(-1, c, c)
    return (cosines @ even).view(-1, c, c) - turned + turned.mT


@lru_cache(maxsize=64)
def _waves(h: int, w: int) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π f·δ over the number of positions, for one half of the frequencies: the second mirrors
    the first."""
    δ = torch.tensor(AHEAD, dtype=torch.float64)
    fy, fx = torch.arange(h, dtype=torch.float64) / h, torch.arange(w // 2 + 1, dtype=torch.float64) / w
    turns = 2 * torch.pi * (δ[:, 0, None, None] * fy[:, None] + δ[:, 1, None, None] * fx)
    mirrored = torch.full_like(fx, 2.0)
    mirrored[0] = 1
    if w % 2 == 0:
        mirrored[-1] = 1
    weight = mirrored / (h * w)
    return (turns.cos() * weight).flatten(1), (turns.sin() * weight).flatten(1)
