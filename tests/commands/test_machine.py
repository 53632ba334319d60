from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from nognet.commands.machine import checkout_commit, processor_name


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "First")
    return tmp_path


def test_a_checkout_tells_its_commit_and_whether_files_differ(checkout: Path) -> None:
    commit = checkout_commit(checkout)
    assert commit is not None
    assert commit.sha == git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", commit.sha)
    assert not commit.changed
    (checkout / "untracked").write_text("of no account")
    assert checkout_commit(checkout) == commit
    (checkout / "file").write_text("two")
    changed = checkout_commit(checkout)
    assert changed is not None
    assert changed.changed


def test_a_package_installed_inside_another_checkout_has_no_commit(checkout: Path) -> None:
    inside = checkout / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert checkout_commit(inside) is None


def test_without_a_first_commit_or_without_git_there_is_none(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert checkout_commit(empty) is None
    monkeypatch.setenv("PATH", str(empty))
    assert checkout_commit(checkout) is None


def test_the_cpu_is_named_by_its_model(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Example CPU @ 2.0 GHz\nmodel name\t: Other\n")
    assert processor_name(info) == "Example CPU @ 2.0 GHz"
    info.write_text("processor\t: 0\n")
    assert processor_name(info)
    assert processor_name(tmp_path / "nowhere") == processor_name(info)
