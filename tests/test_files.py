"""A crash leaves the old file or the new one, and nothing lying about."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nognet.files import atomic_folder, atomic_path, held, write_json_atomic, write_text_atomic


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf_8_and_alone(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.txt", "größe 3 µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "größe 3 µm\n".encode()
    assert _names(tmp_path) == ["a.txt"]


def test_the_new_name_is_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a name that was not synced stands for the old file."""
    synced: list[tuple[int, bool]] = []
    path = tmp_path / "a.txt"
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", noting)
    write_text_atomic(path, "x")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "deep" / "er" / "a.txt", "x")
    assert (tmp_path / "deep" / "er" / "a.txt").read_text(encoding="utf-8") == "x"


def test_a_failure_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def fail_halfway() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the ne", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail_halfway()
    assert path.read_text(encoding="utf-8") == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_failure_without_an_old_file_leaves_no_file(tmp_path: Path) -> None:
    def interrupt() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert _names(tmp_path) == []


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    code = (
        "import os, signal, sys; from pathlib import Path; from nognet.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == "old"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = {"a" * 200_000, "b" * 100_000}
    write_text_atomic(path, "a" * 200_000)
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        write_text_atomic(path, "b" * 100_000 if i % 2 else "a" * 200_000)
    done.set()
    reader.join()
    assert seen
    assert seen <= texts


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_file_has_the_mode_asked_for(tmp_path: Path, mode: int) -> None:
    write_text_atomic(tmp_path / "key", "x", mode=mode)
    assert (tmp_path / "key").stat().st_mode & 0o777 == mode


def test_a_secret_is_readable_by_nobody_else_while_it_is_written(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "key", mode=0o600) as temporary:
        assert temporary.stat().st_mode & 0o077 == 0


def test_the_temporary_file_lies_in_the_same_folder_for_the_rename(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".a.txt.")
    assert not temporary.exists()


def test_json_round_trips(tmp_path: Path) -> None:
    value = {"name": "ä", "rows": [1, 2.5, None, True]}
    write_json_atomic(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_never_gets_into_json(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"before": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, {"deep": [number]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"before": 1}
    assert _names(tmp_path) == ["a.json"]


def test_a_folder_that_can_not_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        write_text_atomic(tmp_path / "file" / "a.txt", "x")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208  hidden files too


def test_one_process_at_a_time_is_let_in(tmp_path: Path) -> None:
    lock = tmp_path / "state" / ".lock"
    script = (
        "import pathlib, sys; from nognet.files import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('in', flush=True)"
    )
    with held(lock):
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1)
    assert other.communicate(timeout=60)[0] == "in\n"
    assert stat.S_IMODE(lock.parent.stat().st_mode) == 0o700


def test_a_folder_appears_whole_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, fsync = tmp_path / "run", set[tuple[int, bool]](), os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.add((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", noting)
    with atomic_folder(path) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a.txt").write_text("x", encoding="utf-8")
        assert _names(tmp_path) == [".run.tmp"]
    assert _names(tmp_path) == ["run"]
    below = {(made.stat().st_ino, False) for made in (path, *path.rglob("*"))}
    assert synced == below | {(tmp_path.stat().st_ino, True)}


def _fail_in_folder(path: Path) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "half.txt").write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")


def test_a_folder_that_failed_leaves_nothing_and_one_that_was_killed_is_cleared(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match="No space left"):
        _fail_in_folder(tmp_path / "run")
    assert _names(tmp_path) == []
    (tmp_path / ".run.tmp" / "deep").mkdir(parents=True)
    with atomic_folder(tmp_path / "run") as temporary:
        assert _names(temporary) == []
    assert _names(tmp_path) == ["run"]


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "run"):
        pass
    assert _names(tmp_path) == ["run"]
    assert _names(tmp_path / "run") == ["old.txt"]
