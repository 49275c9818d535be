"""Rows held plain or compressed: errors within the bounds of each kind, products of the restored rows, bytes
counted."""

import pytest
import torch

from headwater.curvature.compression import Piece, held
from headwater.errors import OptionError

PIECES = [Piece(0, 6, 9), Piece(54, 6, 1), Piece(60, 3, 7)]


@pytest.fixture
def rows():
    torch.random.manual_seed(0)
    scales = torch.cat([torch.full((54,), 1e-3), torch.ones(6), torch.full((21,), 50.0)])
    return torch.randn(4, 81) * scales


@pytest.mark.parametrize("kind", ["float32", "int8", "int4", "svd:2"])
def test_products_are_those_of_the_restored_rows(rows, kind):
    compressed, v = held(rows, PIECES, kind), torch.randn(5, 81)
    torch.testing.assert_close(compressed.times(v), compressed.restored() @ v.T, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_an_affine_code_is_at_most_half_a_step_off_in_every_tensor(rows, bits):
    back = held(rows, PIECES, f"int{bits}").restored()
    for piece in PIECES:
        part = slice(piece.first, piece.stop)
        step = (rows[:, part].amax(1) - rows[:, part].amin(1)) / (2**bits - 1)
        assert ((back - rows)[:, part].abs().amax(1) <= 0.501 * step).all()


def test_four_bits_have_fifteen_steps_also_of_an_odd_number_of_values(rows):
    back = held(rows, PIECES, "int4").restored()[:, 60:]
    assert all(len(row.unique()) <= 16 for row in back)
    assert back.shape == (4, 21)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5])
def test_constants_are_kept_exactly(value):
    row = torch.full((1, 81), value)
    torch.testing.assert_close(held(row, PIECES, "int8").restored(), row)


def test_a_low_rank_is_the_best_there_is_and_full_rank_is_exact(rows):
    matrices = rows[:, :54].view(4, 6, 9)
    back = held(rows, PIECES, "svd:2").restored()[:, :54].view(4, 6, 9)
    lost = torch.linalg.svdvals(matrices)[:, 2:].square().sum(1)
    torch.testing.assert_close((back - matrices).square().sum((1, 2)), lost)
    torch.testing.assert_close(held(rows, PIECES, "svd:6").restored(), rows)


def test_bytes_are_those_of_the_codes(rows):
    assert held(rows, PIECES, "float32").bytes == 4 * 4 * 81
    assert held(rows, PIECES, "int8").bytes == 4 * (81 + 3 * 8)
    assert held(rows, PIECES, "int4").bytes == 4 * (27 + 3 + 11 + 3 * 8)


@pytest.mark.parametrize("kind", ["int7", "svd", "svd:0", "svd:-1", "float16", ""])
def test_other_kinds_are_refused(rows, kind):
    with pytest.raises(OptionError, match="expected float32, int8, int4 or svd:RANK"):
        held(rows, PIECES, kind)
