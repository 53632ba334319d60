"""Uploads as ZIP archives: read whole, and nothing of them is left on the disk afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

import nognet.data.site.examine as module
from nognet.config import SiteConfig
from nognet.data.site.examine import examine_site
from tests.builders.site_files import site_config, write_growing_site, write_table

DATES = ("2020-01-01", "2021-01-01")


def zipped_site(folder: Path) -> SiteConfig:
    """One archive a time point, with CT and mask in it, and no other file."""
    write_growing_site(folder, ["P"])
    rows = []
    for date in DATES:
        place = folder / "P" / date
        with zipfile.ZipFile(folder / f"{date}.zip", "w") as archive:
            for file in (*(place / "ct").iterdir(), place / "n.nrrd"):
                archive.write(file, f"export/{file.name}")
        rows.append(["P", "n", date, f"{date}.zip", f"{date}.zip"])
    write_table(folder, rows)
    return site_config(folder)


def test_one_archive_may_hold_both_the_ct_and_its_mask(tmp_path: Path) -> None:
    plain = write_growing_site(tmp_path / "plain", ["P"])
    (tmp_path / "zipped").mkdir()
    wanted, found = (
        examine_site(site).records[0]
        for site in (plain, zipped_site(tmp_path / "zipped"))
    )  # fmt: skip
    assert found.baseline_volume_mm3 == wanted.baseline_volume_mm3
    assert found.follow_up_volume_mm3 == wanted.follow_up_volume_mm3


def test_a_worker_whose_parent_was_killed_removes_what_was_unpacked(tmp_path: Path) -> None:
    scratch = tmp_path / "nognet-scratch"
    (scratch / "upload").mkdir(parents=True)
    (scratch / "upload" / "000001").write_bytes(b"pixels")
    code = (
        "import os, sys; from nognet.data.site.examine import _end_with; "
        "read, write = os.pipe(); os.close(write); _end_with(read, sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(scratch)], check=False)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sigterm_unwinds_and_the_handler_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threading.current_thread() is threading.main_thread()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "site").mkdir()
    site = zipped_site(tmp_path / "site")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seen: list[int] = []

    def ended(*_: object, **__: object) -> None:
        seen.append(len(list(temporary.iterdir())))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("nognet.data.pairs.timepoints.examine_ct", ended)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as caught:
            examine_site(site)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143
    assert seen == [1]  # it was unpacked when the signal came
    assert list(temporary.iterdir()) == []


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    def theirs(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with module._ending_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
