"""Masks: a key stream of AES in counter mode, added and taken away."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from nognet.secagg import masks
from nognet.secagg.masks import with_masks

KEY = bytes(range(32))


@pytest.mark.parametrize("word", [np.uint32, np.uint64])
def test_a_mask_is_the_key_stream_whatever_the_chunks(
    word: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(8000))
    expected = np.frombuffer(stream, dtype=np.dtype(word).newbyteorder("<"))[:1000]
    monkeypatch.setattr(masks, "_CHUNK_BYTES", 256)
    assert np.array_equal(with_masks(np.zeros(1000, word), plus=[KEY]), expected)


def test_what_is_added_and_taken_away_again_is_gone() -> None:
    words = np.arange(5, dtype=np.uint32)
    other = bytes(32)
    masked = with_masks(words, plus=[KEY], minus=[other])
    assert not np.array_equal(masked, words)
    assert np.array_equal(with_masks(masked, plus=[other], minus=[KEY]), words)
    assert np.array_equal(words, np.arange(5))  # untouched
