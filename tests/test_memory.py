from __future__ import annotations

import subprocess
import sys

import numpy as np

from nognet.memory import largest_resident_bytes, resident_bytes


def test_what_was_once_needed_is_told_after_it_was_given_back() -> None:
    before = largest_resident_bytes()
    size = before + 64 * 2**20  # more than was ever free
    np.ones(size, dtype=np.uint8)
    assert largest_resident_bytes() >= size


def test_a_small_process_of_a_large_one_is_small() -> None:
    large = np.ones(256 * 2**20, dtype=np.uint8)
    script = "from nognet.memory import largest_resident_bytes as peak; print(peak())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < large.nbytes / 2 < largest_resident_bytes()


def test_what_is_resident_now_falls_again() -> None:
    held = np.ones(256 * 2**20, dtype=np.uint8)
    with_it = resident_bytes()
    size = held.nbytes
    del held
    assert resident_bytes() < with_it - size / 2 < largest_resident_bytes()
