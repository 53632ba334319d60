"""What noise of the sites costs beside plain words in a secure sum, at one site: seconds.

    python -m tests.overhead.noised_sum

Plain and noised in turns, in one process; the masks are those of three sites.
"""

from __future__ import annotations

import secrets

import numpy as np

from nognet.privacy.discrete_gaussian import discrete_gaussian, noise_table
from nognet.privacy.distributed import NoiseShare, noise_share
from nognet.privacy.secret import SecretStream
from nognet.privacy.whole_updates import whole_update
from nognet.secagg.masks import Words, with_masks
from nognet.secagg.noised import NoisedCode, encode_noised
from nognet.secagg.quantise import Code, Counts, encode
from tests.overhead.timed import timed

SIZES = (300_000, 5_000_000)
NOISES = (1.0, 10.0)
REPEATS = 3
_MASKS = 3


def measured(noise: float, length: int) -> str:
    """Give a row of the table: the least of `REPEATS` each."""
    share = noise_share(noise, clip_norm=0.5, numbers=length, honest=2)
    update = np.random.default_rng(0).normal(0.0, 0.01, length)
    table_s, table = timed(lambda: noise_table.__wrapped__(share.variance))
    code = NoisedCode(share.step, share.largest, 3, 3)
    costs = []
    for _ in range(REPEATS):
        plain_s, _ = timed(lambda: _masked(encode(update, Counts(1, 1, 1), Code(20, 0.5, 1, 3))[0]))
        whole_s, (whole, stream) = timed(lambda: _whole(update, share))
        noise_s, drawn = timed(lambda stream=stream: discrete_gaussian(table, length, stream))
        mask_s, _ = timed(lambda w=whole, n=drawn: _masked(encode_noised(w + n, code)))
        costs.append((plain_s, whole_s, noise_s, mask_s, whole_s + noise_s + mask_s))
    plain_s, whole_s, noise_s, mask_s, all_s = (min(part) for part in zip(*costs, strict=True))
    return (
        f"| {length / 1e6:g} M | {noise:g} | {share.variance**0.5:.0f} | {table_s:.2f} | "
        f"{whole_s:.2f} | {noise_s:.2f} | {mask_s:.2f} | {all_s:.2f} | {plain_s:.2f} | "
        f"{(table_s + all_s) / plain_s:.1f} | {code.word.itemsize} |"
    )


def _whole(update: np.ndarray, share: NoiseShare) -> tuple[np.ndarray, SecretStream]:
    stream = SecretStream.fresh()
    whole = whole_update(update, clip_norm=share.clip_norm, levels=share.levels, stream=stream)
    return whole, stream


def _masked(words: Words) -> Words:
    return with_masks(words, [secrets.token_bytes(32) for _ in range(_MASKS)])


def main() -> None:
    """Print the table."""
    print(  # noqa: T201  a command
        "| numbers | multiplier | share, steps | table, s | clip and round, s | noise, s | mask, "
        "s | all three, s | plain words and masks, s | with the table, over plain | bytes a word |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")  # noqa: T201  a command
    for length in SIZES:
        for noise in NOISES:
            print(measured(noise, length), flush=True)  # noqa: T201  a command


if __name__ == "__main__":
    main()
