"""The weights of patches in torch, for a card: the numbers of `compiled.weights.weighed`, of which nothing is
left out.

Squared differences between rows of two pictures, summed down a patch and then along the diagonals, are the
distances of all patches of two rows. Nothing is subtracted here either: ‖x‖² + ‖y‖² − 2⟨x, y⟩ would lose the
small distances, which weigh most."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from headwater.linalg.transfer import sent
from headwater.patches.compiled.displaced import Windows
from headwater.patches.compiled.weights import Weighed

ROOM = 2**30  # bytes at most, unless one image alone takes more
MOST = 256  # images that are compared at once: more are no sooner done


def images_at_once(down: Windows, across: Windows, variants: int, itemsize: int) -> int:
    """The number of images whose distances from one row of windows fit ROOM, with what they are made from."""
    of_one = variants * max(1, down.high - down.low) * _span(across) ** 2 * itemsize
    return min(MOST, max(1, ROOM // (4 * of_one)))


def weighed_on(
    device: torch.device,
    x: Float[np.ndarray, "c h w"],
    y: Float[np.ndarray, "v b c h w"],
    sides: tuple[Windows, Windows],
    scale: float,
    top: int,
) -> Weighed:
    """exp(−scale·D) between every window of the map x and the patches of b pictures, v variants of each, but
    not the codes, which only `traced` needs."""
    picture, pictures = (_covered(sent(values, device), *sides) for values in (x, y))
    rows = [_row(picture, pictures, sides, row, scale, top) for row in range(sides[0].number)]
    least, total, nearest = (torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    return Weighed(least, total, nearest, np.empty((0, y.shape[1]), np.int16), nearest[:0])


def _row(
    x: Float[Tensor, "c h1 w1"],
    y: Float[Tensor, "v b c h1 w1"],
    sides: tuple[Windows, Windows],
    row: int,
    scale: float,
    top: int,
) -> tuple[Float[Tensor, " nx"], Float[Tensor, " nx"], Float[Tensor, "nx b"]]:
    """`least`, `total` and `top` of the windows of one row."""
    distances = _distances(x, y, sides, row).permute(3, 1, 0, 2, 4).flatten(2)
    least = distances.amin((1, 2))
    nearest = distances.topk(min(top, distances.shape[2]), largest=False, sorted=False).values

    def weights(distances: Float[Tensor, "nx b _"]) -> Float[Tensor, "nx b _"]:
        return ((least[:, None, None] - distances) * scale).exp()

    return least, weights(distances).sum((1, 2)), weights(nearest).sum(2)


def _distances(
    x: Float[Tensor, "c h1 w1"], y: Float[Tensor, "v b c h1 w1"], sides: tuple[Windows, Windows], row: int
) -> Float[Tensor, "v b r nx nx"]:
    """D between the windows of a row and those of the r rows that they meet; infinite where two do not."""
    down, across = sides
    low, high = (down.low, down.high) if down.low <= row < down.high else (row, row + 1)
    squares = x.new_zeros(*y.shape[:2], high - low, x.shape[2], x.shape[2])
    for offset in range(0, down.step * down.elements, down.step):
        for line, lines in zip(x, y.unbind(2), strict=True):
            beside = lines[:, :, low + offset : high + offset]
            squares += (line[row + offset][:, None] - beside[..., None, :]).square_()
    distances, n = squares.new_zeros(*squares.shape[:3], across.number, across.number), across.number
    for offset in range(0, across.step * across.elements, across.step):
        distances += squares[..., offset : offset + n, offset : offset + n]
    return distances.masked_fill_(~_meeting(across, x.device), torch.inf)


def _meeting(windows: Windows, device: torch.device) -> Bool[Tensor, "n n"]:
    """Which windows of a side meet: all of those inside, and each with itself."""
    place = torch.arange(windows.number, device=device)
    inside = (place >= windows.low) & (place < windows.high)
    return (inside[:, None] & inside) | (place[:, None] == place)


def _covered(maps: Float[Tensor, "*b h w"], down: Windows, across: Windows) -> Float[Tensor, "*b h1 w1"]:
    """The part of the maps that windows cover, with 0 outside the maps."""
    (h, w), left, above = maps.shape[-2:], -across.first, -down.first
    return F.pad(maps, (left, _span(across) - left - w, above, _span(down) - above - h))


def _span(windows: Windows) -> int:
    """The number of elements that a side's windows cover."""
    return windows.number + windows.step * (windows.elements - 1)
