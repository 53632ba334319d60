"""What a secure sum costs beside a plain one, in one process: seconds and bytes.

    python -m tests.overhead.secure_sum

Training, waiting and the network are not in it; `metrics.json` has a run's own ``secure_sum``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nognet.secagg.quantise import Code
from nognet.wire.records.secure_rows import rows_text
from tests.builders.secure_sum import Sum, names
from tests.overhead.timed import timed

SIZES = (300_000, 5_000_000)
REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """Seconds, the least of `REPEATS`; bytes of one site up."""

    sites: int
    leave: int
    length: int
    plain_s: float
    site_s: float
    coordinator_s: float
    keys_s: float
    bytes_ratio: float
    short_bytes: int

    @property
    def line(self) -> str:
        """A row of the table."""
        return (
            f"| {self.sites} ({self.leave} leave) | {self.length / 1e6:g} M | {self.plain_s:.4f} | "
            f"{self.keys_s:.3f} | {self.site_s:.3f} | {self.coordinator_s:.3f} | "
            f"{self.coordinator_s / self.plain_s:.1f} | {self.bytes_ratio:.3f} | "
            f"{self.short_bytes / 1000:.1f} kB |"
        )


def measured(count: int, leave: int, length: int) -> Cost:
    """Play whole sums and take the least seconds of each part."""
    sites = names(count)
    rng = np.random.default_rng(0)
    updates = {site: (rng.normal(0.0, 0.01, length), 20) for site in sites}
    plain = [updates[site][0].astype(np.float32) for site in sites]
    code = Code(20, 0.5, 100, count)
    plain_s = min(timed(lambda: _plain_mean(plain))[0] for _ in range(REPEATS))
    costs = []
    for _ in range(REPEATS):
        begun = Sum(sites, code=code).begin()
        keys_s, done = timed(begun.share)
        mask_s, _ = timed(lambda done=done: done.mask(updates, sites[count - leave :]))
        done.agree().reveal()
        coordinator_s, _ = timed(done.result)
        costs.append((keys_s / count, mask_s / (count - leave), coordinator_s))
    keys_s, site_s, coordinator_s = (min(part) for part in zip(*costs, strict=True))
    return Cost(
        sites=count,
        leave=leave,
        length=length,
        plain_s=plain_s,
        site_s=site_s,
        coordinator_s=coordinator_s,
        keys_s=keys_s,
        bytes_ratio=done.masked[sites[0]].nbytes / plain[0].nbytes,
        short_bytes=_short_bytes(sites),
    )


def _plain_mean(updates: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros(updates[0].size)
    for update in updates:
        total += update * (1 / len(updates))
    return total


def _short_bytes(sites: Sequence[str]) -> int:
    """Bytes that a site sends in the short steps, as rows."""
    row = {"identity": bytes(120), "seal": bytes(32), "mask": bytes(32), "signature": bytes(104)}
    sealed = {site: {"sealed": bytes(92)} for site in sites[1:]}
    shares = {site: {"seed": bytes(32)} for site in sites}
    signature = {sites[0]: {"signature": bytes(104)}}
    texts = ({sites[0]: row}, sealed, signature, shares)
    return sum(len(rows_text(rows)) for rows in texts)


def main() -> None:
    """Print the table."""
    print(  # noqa: T201  a command
        "| sites | numbers | plain mean, s | keys and shares, s a site | quantise and mask, s a "
        "site | sum and unmask, s | over plain | update's bytes over plain | short steps up |"
    )
    print("|---|---|---|---|---|---|---|---|---|")  # noqa: T201  a command
    for length in SIZES:
        for count, leave in ((3, 0), (10, 0), (10, 3)):
            print(measured(count, leave, length).line, flush=True)  # noqa: T201  a command


if __name__ == "__main__":
    main()
