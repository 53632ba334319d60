"""The cache under stress: killed runs, two runs at once, full disks, readers of an older index."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from nognet.config import RoiConfig, SiteConfig, SplitConfig, load_site
from nognet.data.pairs import memory
from nognet.data.site import prepare as module
from nognet.data.site.examine import examine_site
from nognet.data.site.prepare import (
    prepare_site,
    prepare_site_with_report,
    prepared_or_prepare,
)
from nognet.data.store import open_store, write_store
from nognet.data.stored_pair import read_pair
from nognet.errors import SiteDataError
from nognet.types import RoiPair
from tests.builders.ct_files import write_image
from tests.builders.site_files import (
    GRID,
    nodule,
    site_config,
    write_growing_site,
)

PATIENTS = ("one", "two", "three", "four")
PREPARE = "import sys; from nognet.commands.main import main; main()"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's files with its key, prepared by nobody yet."""
    folder = tmp_path_factory.mktemp("written")
    site = write_growing_site(folder, PATIENTS)
    module.load_or_make_key(site.state)
    values = {
        "name": "here", "studies": "studies.csv", "roi": {"size_vox": 32},
        "preparation": {"workers": 1, "registration": {"region_margin_mm": 20.0}},
    }  # fmt: skip
    (folder / "site.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def whole(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site prepared in one go."""
    folder = tmp_path_factory.mktemp("whole") / "site"
    shutil.copytree(written, folder)
    prepare_site(load_site(folder / "site.yaml"))
    return folder


@pytest.fixture(scope="module")
def fresh(whole: Path) -> str:
    """Fingerprint of the site prepared in one go."""
    return open_store(whole / "cache").fingerprint


@pytest.fixture
def site(written: Path, tmp_path: Path) -> SiteConfig:
    shutil.copytree(written, tmp_path / "site")
    return load_site(tmp_path / "site" / "site.yaml")


@pytest.fixture
def prepared(whole: Path, tmp_path: Path) -> SiteConfig:
    """A prepared site of the test's own."""
    shutil.copytree(whole, tmp_path / "site")
    site = load_site(tmp_path / "site" / "site.yaml")
    prepare_site(site)  # all reused; but the index knows where its table lies
    return site


def start(site: SiteConfig) -> subprocess.Popen[bytes]:
    """Run `nognet prepare` as a process of its own."""
    path = site.studies.parent / "site.yaml"
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, "prepare", "--site", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def pairs_of(site: SiteConfig) -> list[Path]:
    return sorted((site.cache / "pairs").glob("*.npz"))


def test_a_killed_run_leaves_no_half_file_and_the_next_one_goes_on(
    site: SiteConfig, fresh: str
) -> None:
    run = start(site)
    give_up = time.monotonic() + 60
    while not pairs_of(site) and time.monotonic() < give_up and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    left = pairs_of(site)
    assert 0 < len(left) < len(PATIENTS)
    for file in left:
        with np.load(file, allow_pickle=False) as archive:
            assert archive["baseline"].shape == (32, 32, 32)
    assert not (site.cache / "index.json").exists()
    store, examination = prepare_site_with_report(site)
    assert store.fingerprint == fresh
    # the pair last written may have come before its line in the memory
    assert len(left) - 1 <= sum(o.reused for o in examination.outcomes) <= len(left)


def test_two_processes_at_once_make_one_whole_store(site: SiteConfig, fresh: str) -> None:
    runs = [start(site), start(site)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert open_store(site.cache).fingerprint == fresh
    assert len(pairs_of(site)) == len(PATIENTS)
    reused = [b"4 reused" in out for out, _ in outputs]
    assert sorted(reused) == [False, True]  # the second waited, and found all there


def test_check_goes_on_while_a_preparation_holds_the_lock(prepared: SiteConfig) -> None:
    with module._locked(prepared.cache):
        outcomes = examine_site(prepared).outcomes
    assert [o.reused for o in outcomes] == [True] * len(PATIENTS)


def test_what_check_stores_is_what_prepare_reuses(site: SiteConfig, fresh: str) -> None:
    examine_site(site)
    files = pairs_of(site)
    assert len(files) == len(PATIENTS)
    assert {p.name for p in site.cache.iterdir()} == {"pairs"}
    store, examination = prepare_site_with_report(site)
    assert all(o.reused for o in examination.outcomes)
    assert pairs_of(site) == files
    assert store.fingerprint == fresh


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB: one pair of 32 voxels an edge has 330 kB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this user may mount no file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_file(
    site: SiteConfig, tiny_disk: Path, fresh: str
) -> None:
    full = site.model_copy(update={"cache": tiny_disk / "cache"})
    with pytest.raises(SiteDataError, match=r"No space left on device.*make room") as caught:
        prepare_site(full)
    assert caught.value.code == "cache-write"
    assert [f.suffix for f in full.cache.rglob("*") if f.is_file() and f.name != ".lock"] == [
        ".npz"
    ]
    assert not (full.cache / "index.json").exists()
    shutil.copytree(full.cache, site.cache)  # a larger disk
    store, examination = prepare_site_with_report(site)
    assert sum(o.reused for o in examination.outcomes) == 1
    assert store.fingerprint == fresh


def test_a_file_size_limit_is_the_same_clear_error(site: SiteConfig) -> None:
    path = site.studies.parent / "site.yaml"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000)); \
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {PREPARE}"
    done = subprocess.run(
        [sys.executable, "-c", limited, "prepare", "--site", str(path)],
        # coverage's own data would break the limit
        env={name: value for name, value in os.environ.items() if "COV" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((site.cache / "pairs").iterdir()) == []


def test_a_second_run_over_an_unchanged_archive_reads_no_image(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SETTLED_NS", 0)
    before = prepare_site(prepared).fingerprint

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(memory.hashlib, "file_digest", never)
    monkeypatch.setattr("nognet.data.pairs.times.read_time", never)
    assert prepare_site(prepared).fingerprint == before


def test_a_changed_byte_of_an_image_is_noticed_though_its_times_were_set_back(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SETTLED_NS", 0)
    prepare_site(prepared)
    file = sorted((prepared.studies.parent / "two" / "2021-01-01" / "ct").iterdir())[7]
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-1000, os.SEEK_END)
        byte = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    _, examination = prepare_site_with_report(prepared)
    assert [o.patient for o in examination.outcomes if not o.reused] == ["two"]


def test_a_reader_of_the_last_index_still_finds_its_pairs(prepared: SiteConfig) -> None:
    reader = open_store(prepared.cache)
    place = prepared.studies.parent / "one" / "2021-01-01"
    write_image(place / "n.nrrd", nodule((0.0, 0.0, 0.0), 5.5), GRID)
    assert prepare_site(prepared).fingerprint != reader.fingerprint
    prepare_site(prepared)
    prepare_site(prepared)
    for record in reader.index.records:
        read_pair(prepared.cache, record)
    assert len(pairs_of(prepared)) == len(PATIENTS) + 1


def test_pairs_that_no_index_has_named_for_a_day_are_deleted(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared.studies.parent / "one" / "2021-01-01"
    write_image(place / "n.nrrd", nodule((0.0, 0.0, 0.0), 5.5), GRID)
    half = prepared.cache / "pairs" / ".killed.npz.abc.tmp"
    half.write_bytes(b"half")
    prepare_site(prepared)
    assert len(pairs_of(prepared)) == len(PATIENTS) + 1
    later = time.time() + module.KEPT_SECONDS + 60
    monkeypatch.setattr(module.time, "time", lambda: later)
    prepare_site(prepared)
    assert len(pairs_of(prepared)) == len(PATIENTS)
    assert not half.exists()


def test_the_store_is_opened_as_it_is_while_table_and_settings_stay(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(module, "prepare_site", never)
    assert prepared_or_prepare(prepared).fingerprint == open_store(prepared.cache).fingerprint


def test_a_changed_table_has_the_pairs_prepared_anew(prepared: SiteConfig) -> None:
    lines = prepared.studies.read_text().splitlines()
    prepared.studies.write_text("\n".join(lines[:-2]) + "\n")
    assert len(prepared_or_prepare(prepared).index.records) == len(PATIENTS) - 1


def test_changed_settings_have_the_pairs_prepared_anew(prepared: SiteConfig) -> None:
    limits = prepared.preparation.model_copy(update={"max_interval_days": 100.0})
    strict = prepared.model_copy(update={"preparation": limits})
    with pytest.raises(SiteDataError) as caught:
        prepared_or_prepare(strict)
    assert caught.value.code == "no-usable-pair"
    other = prepared.model_copy(update={"roi": RoiConfig(size_vox=48)})
    assert prepared_or_prepare(other).roi.size_vox == 48


def test_pairs_of_an_older_preparation_are_prepared_anew_and_not_mixed(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {record.file for record in open_store(prepared.cache).index.records}
    monkeypatch.setattr("nognet.data.pairs.task.PREPARATION_VERSION", "another")
    after = {record.file for record in prepared_or_prepare(prepared).index.records}
    assert len(after) == len(before) == len(PATIENTS)
    assert not after & before


def test_workers_are_no_setting_of_the_pairs(
    prepared: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "prepare_site", lambda *_, **__: pytest.fail("prepared again"))
    limits = prepared.preparation.model_copy(update={"workers": 2})
    prepared_or_prepare(prepared.model_copy(update={"preparation": limits}))


def test_a_missing_table_is_told_with_its_path(
    prepared: SiteConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    prepared.studies.unlink()
    with caplog.at_level(logging.WARNING, "nognet"):
        assert len(prepared_or_prepare(prepared).index.records) == len(PATIENTS)
    assert f"{prepared.studies}: no such file" in caplog.text
    other = prepared.model_copy(update={"roi": RoiConfig(size_vox=48)})
    with pytest.raises(SiteDataError, match=r"studies\.csv: no such file"):
        prepared_or_prepare(other)


def test_pairs_written_without_files_need_no_table(tmp_path: Path) -> None:
    image, mask = np.zeros((32,) * 3, np.float32), np.ones((32,) * 3, np.uint8)
    pair = RoiPair("a", "p", image, mask, image, mask, 100.0, 50.0, 80.0)
    site = site_config(tmp_path)
    write_store(site.cache, [pair], {"p": "train"}, roi=site.roi)
    assert len(prepared_or_prepare(site).index.records) == 1


def test_another_seed_moves_nobody_unless_asked_to(
    prepared: SiteConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    before = dict(open_store(prepared.cache).index.splits)
    other = prepared.model_copy(update={"split": SplitConfig(validation=0.5, test=0.25)})
    with pytest.raises(SiteDataError, match=r"[1-4] of 4 patients move .*--resplit") as caught:
        prepare_site(other)
    assert caught.value.code == "resplit"
    with pytest.raises(SiteDataError):
        prepared_or_prepare(other)
    assert dict(open_store(prepared.cache).index.splits) == before
    with caplog.at_level(logging.WARNING, "nognet"):
        after = dict(prepare_site(other, resplit=True).index.splits)
    moved = sum(before[p] != after[p] for p in before)
    assert moved > 0
    assert f"{moved} of 4 patients move between the splits" in caplog.text
    assert dict(prepare_site(other).index.splits) == after  # settled from then on


def test_damaged_splits_are_refused_and_not_drawn_anew(prepared: SiteConfig) -> None:
    (prepared.state / "splits.json").write_text('{"settings": {}, "patients": {"a": "nowhere"}}')
    with pytest.raises(SiteDataError) as caught:
        prepare_site(prepared)
    assert caught.value.code == "splits-damaged"


def test_everything_in_the_state_folder_is_for_the_site_alone(prepared: SiteConfig) -> None:
    files = [f for f in prepared.state.rglob("*") if f.is_file()]
    assert len(files) >= len(PATIENTS) + 3  # memories, key, splits, report
    assert [f for f in files if f.stat().st_mode & 0o077] == []
