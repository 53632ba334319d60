"""A full disk: room is kept for the record of what leaves, and runs out in the end."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from nognet_client.egress.room import RESERVE_BYTES, with_room


def full(times: int) -> tuple[list[int], object]:
    calls: list[int] = []

    def write() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(errno.ENOSPC, "No space left on device")
        return "written"

    return calls, write


def test_the_room_kept_is_given_up_bit_by_bit(tmp_path: Path) -> None:
    assert with_room(tmp_path, lambda: 1) == 1
    reserve = tmp_path / ".reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES  # real room, no hole
    calls, write = full(2)
    assert with_room(tmp_path, write) == "written"  # type: ignore[arg-type]  # a stand-in's signature
    assert len(calls) == 3
    assert 0 < reserve.stat().st_size < RESERVE_BYTES


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    calls, write = full(10_000)
    with pytest.raises(OSError, match="No space"):
        with_room(tmp_path, write)  # type: ignore[arg-type]  # a stand-in's signature
    assert (tmp_path / ".reserve").stat().st_size == 0
    assert len(calls) == 17


def test_another_trouble_is_not_waited_out(tmp_path: Path) -> None:
    def write() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError, match="Read-only"):
        with_room(tmp_path, write)
    assert (tmp_path / ".reserve").stat().st_size == RESERVE_BYTES
