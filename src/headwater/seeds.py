"""Randomness that is named, not advanced: equal names give equal numbers, whatever was drawn before.

Every random number of the package comes from here: numpy's Philox, a counter-based generator, keyed by a hash
of (seed, name). Batch size, order, worker count and device therefore change nothing, and no global generator
is touched.
"""

import hashlib
import json

import numpy as np
from jaxtyping import Float32


def key(seed: int, *name: str | int, bits: int = 128) -> int:
    """A hash of (seed, name) as an integer of `bits` bits; distinct names give distinct hashes."""
    text = json.dumps([seed, *name], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=bits // 8).digest(), "little")


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """The random generator named (seed, *name)."""
    return np.random.Generator(np.random.Philox(key=key(seed, *name)))


def normal(shape: tuple[int, ...], seed: int, *name: str | int) -> Float32[np.ndarray, "..."]:
    """Standard normal numbers of the generator (seed, *name), drawn in float32."""
    return generator(seed, *name).standard_normal(shape, dtype=np.float32)
