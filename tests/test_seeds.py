"""Named randomness. The frozen values are the contract: a change here changes every stored feature and every
bank."""

import hashlib

import numpy as np
import pytest

from headwater import seeds

# seed and name, hash of 64 bytes, hash of normal((5, 3)), its first, the first four of integers(0, 1000)
FROZEN = [
    ((0, "noise", "a", 3, 0), "875cbc32ada9fd41", "a7d9a857edfcef06", -0.20474309, [715, 661, 477, 998]),
    ((0, "timesteps"), "871c427208f618c3", "cf7167b9e7d11f23", -1.4873103, [892, 83, 291, 691]),
    ((7, "weights"), "c6f6603c781c1ec0", "3c9711c6139928bd", 0.98814785, [661, 92, 483, 57]),
]


def short_hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@pytest.mark.parametrize(("name", "raw", "normals", "first", "integers"), FROZEN)
def test_the_numbers_of_a_stream_are_frozen(name, raw, normals, first, integers):
    assert short_hash(seeds.generator(*name).bytes(64)) == raw
    assert short_hash(seeds.normal((5, 3), *name).tobytes()) == normals
    assert seeds.normal((1,), *name)[0] == np.float32(first)
    assert seeds.generator(*name).integers(0, 1000, size=4).tolist() == integers


def test_the_key_of_a_name_is_frozen():
    assert seeds.key(7, "weights") == 252348300510828198815490167769461786855


def test_distinct_names_give_distinct_numbers():
    names = [
        (0,),
        (1,),
        (-1,),
        (0, 0),
        (0, "0"),
        (0, "a"),
        (0, "a", "b"),
        (0, "a,b"),
        (0, 'a","b'),
        (0, "ab"),
        (0, "a", 1),
        (0, "a", "1"),
    ]
    assert len({seeds.key(*name) for name in names}) == len(names)
    assert len({seeds.generator(*name).bytes(16) for name in names}) == len(names)


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    alone = seeds.normal((4,), 3, "x")
    seeds.normal((1000,), 3, "y")
    assert np.array_equal(seeds.normal((4,), 3, "x"), alone)


def test_a_longer_draw_begins_with_the_shorter_one():
    assert np.array_equal(seeds.normal((7, 3), 0, "rows")[:4], seeds.normal((4, 3), 0, "rows"))


def test_normal_numbers_are_float32_with_mean_0_and_variance_1():
    numbers = seeds.normal((100_000,), 0, "moments")
    assert numbers.dtype == np.float32
    assert abs(numbers.mean()) < 4 / 100_000**0.5  # four standard errors
    assert abs(numbers.var() - 1) < 4 * (2 / 100_000) ** 0.5


def test_a_key_has_the_number_of_bits_of_its_argument():
    assert all(seeds.key(s, "bits", bits=64) < 2**64 for s in range(100))
    assert max(seeds.key(s, "bits").bit_length() for s in range(100)) > 120


def test_the_global_generators_are_untouched():
    before = np.random.get_state()[1].copy()
    seeds.normal((10,), 0, "global")
    seeds.generator(0, "global").integers(0, 5, size=10)
    assert np.array_equal(np.random.get_state()[1], before)
