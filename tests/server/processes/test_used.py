"""What holds once holds once over a restart, too, and its file does not grow for ever."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from nognet_server.processes.used import _RECORD, _SPARE_RECORDS, UsedOnce

KEEP_S = 310.0


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_restart_forgets_nothing_that_could_be_tried_again(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "state" / "used"
    first = UsedOnce(KEEP_S, clock, path)
    assert [first.use(digest(n)) for n in (1, 2, 1)] == [True, True, False]
    assert path.stat().st_mode & 0o777 == 0o600
    clock.now += 200
    second = UsedOnce(KEEP_S, clock, path)  # the first was killed: it closed nothing
    assert [second.use(digest(n)) for n in (1, 2, 3)] == [False, False, True]
    clock.now += 200
    third = UsedOnce(KEEP_S, clock, path)
    assert [third.use(digest(n)) for n in (3, 1)] == [False, True]


def test_a_record_cut_short_is_dropped_and_those_before_it_hold(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "used"
    first = UsedOnce(KEEP_S, clock, path)
    for number in range(3):
        first.use(digest(number))
    path.write_bytes(path.read_bytes()[:-7])
    second = UsedOnce(KEEP_S, clock, path)
    assert [second.use(digest(n)) for n in (0, 1, 2)] == [False, False, True]
    third = UsedOnce(KEEP_S, clock, path)
    assert not any(third.use(digest(n)) for n in (0, 1, 2))


def test_the_file_is_bound_by_what_is_remembered(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "used"
    used = UsedOnce(KEEP_S, clock, path)
    longest = 0
    for number in range(_SPARE_RECORDS + 3000):
        clock.now += 1.0
        used.use(digest(number))
        if number % 100 == 0:
            longest = max(longest, path.stat().st_size)
    assert len(used) <= KEEP_S + 1
    assert longest <= (2 * KEEP_S + 2 + _SPARE_RECORDS) * _RECORD.size
    assert path.stat().st_size < 3000 * _RECORD.size


def test_a_disk_that_can_not_be_written_is_told_of_once_and_stops_nobody(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with caplog.at_level(logging.WARNING, logger="nognet.server"):
        used = UsedOnce(KEEP_S, clock, blocked / "used")
        assert [used.use(digest(n)) for n in (1, 1, 2)] == [True, False, True]
    assert caplog.text.count("can't be written") == 1
    blocked.unlink()
    assert used.use(digest(3))  # it can be written again: all that is remembered is kept
    after = UsedOnce(KEEP_S, clock, blocked / "used")
    assert not any(after.use(digest(n)) for n in (1, 2, 3))
