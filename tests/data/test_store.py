from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nognet.config import RoiConfig
from nognet.data.store import open_store, write_store
from nognet.data.stored_pair import find_pair, write_pair
from nognet.errors import SiteDataError
from nognet.types import PriorScan, RoiPair

ROI = RoiConfig(size_vox=32)
DIGEST_OF_CONSTANT_PAIR = "9a95b5f5919c5dcc4973920ab366db9627207cc5e62b48e8319bdf4a589dcfa7"
"""As computed before there were prior scans: old caches must stay valid."""


def make_pair(name: str, *, patient: str = "p1", seed: int = 0) -> RoiPair:
    rng = np.random.default_rng(seed)
    images = rng.random((2, 32, 32, 32), dtype=np.float32)
    masks = (rng.random((2, 32, 32, 32)) > 0.9).astype(np.uint8)
    return RoiPair(name, patient, images[0], masks[0], images[1], masks[1], 100.0, 50.0, 80.0)


def constant_pair() -> RoiPair:
    image, mask = np.full((32,) * 3, 0.25, np.float32), np.ones((32,) * 3, np.uint8)
    return RoiPair("a", "p1", image, mask, image, mask, 100.0, 50.0, 80.0)


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    pairs = [make_pair("b", seed=1), make_pair("a", patient="p2", seed=2)]
    write_store(tmp_path, pairs, {"p1": "train", "p2": "test"}, roi=ROI)
    store = open_store(tmp_path)
    [trained], [tested] = store.pairs("train"), store.pairs("test")
    assert store.pairs("validation") == []
    for found, wanted in ((trained, pairs[0]), (tested, pairs[1])):
        assert (found.pair_id, found.interval_days) == (wanted.pair_id, wanted.interval_days)
        np.testing.assert_array_equal(found.baseline, wanted.baseline)
        np.testing.assert_array_equal(found.follow_up_mask, wanted.follow_up_mask)
    assert store.counts()["test"] == {
        "patients": 1, "pairs": 1, "strata": {"growing": 1, "stable": 0, "shrinking": 0},
    }  # fmt: skip


def with_prior(pair: RoiPair, **change: object) -> RoiPair:
    prior = PriorScan(pair.follow_up, pair.follow_up_mask, 90.0)
    return replace(pair, prior=replace(prior, **change))  # type: ignore[arg-type]  # by name


def test_a_prior_scan_is_read_back_with_its_pair(tmp_path: Path) -> None:
    plain, followed = make_pair("a", seed=1), with_prior(make_pair("b", seed=2))
    write_store(tmp_path, [plain, followed], {"p1": "train"}, roi=ROI)
    first, second = open_store(tmp_path).pairs("train")
    assert first.prior is None
    assert second.prior is not None
    assert followed.prior is not None
    assert second.prior.days_before == 90.0
    np.testing.assert_array_equal(second.prior.image, followed.prior.image)
    np.testing.assert_array_equal(second.prior.mask, followed.prior.mask)
    record = write_pair(tmp_path, followed, roi=ROI, inputs="f" * 64)
    assert find_pair(tmp_path, "b", "f" * 64) == record


def test_a_pair_without_a_prior_scan_is_stored_as_it_always_was(tmp_path: Path) -> None:
    record = write_pair(tmp_path, constant_pair(), roi=ROI)
    assert record.sha256 == DIGEST_OF_CONSTANT_PAIR
    with np.load(tmp_path / record.file) as archive:
        about = json.loads(archive["about"].tobytes())
        assert len(archive.files) == 5
    assert list(about) == [
        "pair_id", "patient_id", "interval_days", "baseline_volume_mm3", "follow_up_volume_mm3",
        "stratum", "file", "sha256", "inputs", "quality", "warnings",
    ]  # fmt: skip


def test_the_digest_covers_the_prior_scan(tmp_path: Path) -> None:
    pair = with_prior(make_pair("a"))
    other = np.roll(pair.baseline_mask, 1)
    digests = {
        write_pair(tmp_path, changed, roi=ROI).sha256
        for changed in (
            pair,
            replace(pair, prior=None),
            with_prior(pair, days_before=91.0),
            with_prior(pair, image=pair.baseline),
            with_prior(pair, mask=other),
        )
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((16, 16, 16), np.float32)}, "prior is float32 of shape"),
        ({"mask": np.zeros((32, 32, 32), np.float32)}, "prior_mask is float32"),
        ({"mask": np.full((32, 32, 32), 2, np.uint8)}, "other than 0 and 1"),
        ({"image": np.full((32, 32, 32), -0.1, np.float32)}, "prior has values outside"),
        ({"days_before": 0.0}, "must be above 0"),
        ({"days_before": float("inf")}, "must be above 0"),
    ],
)
def test_a_prior_scan_that_is_not_what_it_has_to_be_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SiteDataError, match=message):
        write_pair(tmp_path, with_prior(make_pair("a"), **change), roi=ROI)


def test_pairs_come_sorted_whatever_the_order_they_were_written_in(tmp_path: Path) -> None:
    pairs = [make_pair(name) for name in "cab"]
    write_store(tmp_path / "1", pairs, {"p1": "train"}, roi=ROI)
    write_store(tmp_path / "2", pairs[::-1], {"p1": "train"}, roi=ROI)
    first, second = open_store(tmp_path / "1"), open_store(tmp_path / "2")
    assert [p.pair_id for p in first.pairs("train")] == ["a", "b", "c"]
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_follows_contents_and_splits(tmp_path: Path) -> None:
    pair = make_pair("a")
    stores = [
        write_store(tmp_path / "1", [pair], {"p1": "train"}, roi=ROI),
        write_store(tmp_path / "2", [pair], {"p1": "test"}, roi=ROI),
        write_store(tmp_path / "3", [replace(pair, interval_days=101.0)], {"p1": "train"}, roi=ROI),
        write_store(tmp_path / "4", [make_pair("a", seed=9)], {"p1": "train"}, roi=ROI),
    ]
    assert len({store.fingerprint for store in stores}) == 4


def test_a_damaged_pair_is_noticed(tmp_path: Path) -> None:
    store = write_store(tmp_path, [make_pair("a")], {"p1": "train"}, roi=ROI)
    other = write_store(tmp_path / "x", [make_pair("a", seed=3)], {"p1": "train"}, roi=ROI)
    file = tmp_path / store.index.records[0].file
    file.write_bytes((tmp_path / "x" / other.index.records[0].file).read_bytes())
    with pytest.raises(SiteDataError, match="doesn't match its digest"):
        store.pairs("train")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SiteDataError, match="can't be read"):
        store.pairs("train")
    file.unlink()
    with pytest.raises(SiteDataError, match="run `nognet prepare`"):
        store.pairs("train")


def test_a_pair_is_found_again_only_by_the_inputs_it_was_made_from(tmp_path: Path) -> None:
    record = write_pair(tmp_path, make_pair("a"), roi=ROI, inputs="f" * 64, quality={"ncc": 0.5})
    assert find_pair(tmp_path, "a", "f" * 64) == record
    assert find_pair(tmp_path, "a", "e" * 64) is None
    # the same file name, but other inputs: the first 16 digits are not the whole
    assert find_pair(tmp_path, "a", "f" * 16 + "0" * 48) is None
    (tmp_path / record.file).write_bytes(b"half")
    assert find_pair(tmp_path, "a", "f" * 64) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_a_damaged_index_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(SiteDataError, match="delete the cache folder"):
        open_store(tmp_path)


def test_a_missing_store_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="nognet prepare") as caught:
        open_store(tmp_path)
    assert caught.value.code == "not-prepared"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": np.zeros((16, 16, 16), np.float32)}, "shape"),
        ({"baseline": np.zeros((32, 32, 32), np.float64)}, "float64"),
        ({"follow_up": np.full((32, 32, 32), np.nan, np.float32)}, "outside"),
        ({"follow_up": np.full((32, 32, 32), 1.5, np.float32)}, "outside"),
        ({"interval_days": 0.0}, "above 0"),
        ({"follow_up_volume_mm3": float("nan")}, "above 0"),
    ],
)
def test_a_pair_that_is_not_what_it_has_to_be_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    pair = replace(make_pair("a"), **change)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SiteDataError, match=message):
        write_store(tmp_path, [pair], {"p1": "train"}, roi=ROI)


def test_repeated_ids_and_patients_without_a_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="repeat"):
        write_store(tmp_path, [make_pair("a"), make_pair("a")], {"p1": "train"}, roi=ROI)
    with pytest.raises(SiteDataError, match="no split"):
        write_store(tmp_path, [make_pair("a")], {}, roi=ROI)
