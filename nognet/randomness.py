"""Randomness is passed, never global: a named generator from one seed.

Each use has names of its own (``"augment", round, "hospital_a"``), so that adding a draw in one
place changes no draw in another, and the same seed gives the same bits on every machine.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed from a root seed and the names of the use (BLAKE2b).

    >>> derived_seed(1, "augment", 2) == derived_seed(1, "augment", 2)
    True
    >>> derived_seed(1, "augment", 2) == derived_seed(1, "augment", 3)
    False
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Make the NumPy generator of that name."""
    return np.random.default_rng(derived_seed(seed, *names))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Make the CPU torch generator of that name."""
    import torch  # late: commands that never draw answer fast

    return torch.Generator().manual_seed(derived_seed(seed, *names))
