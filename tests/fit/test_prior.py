from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nognet.config import NetworkConfig, PreparationConfig, RoiConfig
from nognet.data.site.prepare import prepare_site
from nognet.errors import ConfigError, SiteDataError
from nognet.fit.baseline import ReadNodule, read_nodule
from nognet.fit.model_file import load_model
from nognet.fit.prior import check_prior, cut_prior
from nognet.types import SPLITS
from tests.builders.predict_files import NETWORK, write_model
from tests.builders.site_files import Scan, site_config, write_growing_site, write_scan

ROI = RoiConfig(size_vox=32)
VISITS = (("2019-03-01", 4.0), ("2020-01-01", 4.6), ("2021-01-01", 5.2))


def limits(folder: Path) -> PreparationConfig:
    return site_config(folder).preparation


def nodule_at(folder: Path, date: str) -> ReadNodule:
    return read_nodule(folder / "a" / date / "ct", folder / "a" / date / "n.nrrd")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_growing_site(folder, ("a", "b", "c"), visits=VISITS)
    return folder


def test_it_is_what_preparation_gives_the_pair(site: Path) -> None:
    prepared = prepare_site(site_config(site))
    priors = [p.prior for split in SPLITS for p in prepared.pairs(split) if p.prior is not None]
    found = cut_prior(
        nodule_at(site, VISITS[1][0]), nodule_at(site, VISITS[0][0]), 306.0, ROI, limits(site)
    )
    away = [float(np.abs(prior.image - found.scan.image).max()) for prior in priors]
    same = priors[int(np.argmin(away))]
    # the masks' origins differ by rounding, and the registration ends some microns off
    assert [value < 3e-3 for value in sorted(away)] == [True, False, False]
    np.testing.assert_array_equal(same.mask, found.scan.mask)
    assert same.days_before == found.scan.days_before == 306.0
    assert found.quality["ncc"] > 0.9
    assert found.findings == ()


def test_the_same_ct_is_no_prior_scan(site: Path) -> None:
    now = nodule_at(site, VISITS[1][0])
    with pytest.raises(SiteDataError, match=r"prior scan: it is the same CT") as caught:
        cut_prior(now, now, 306.0, ROI, limits(site))
    assert caught.value.code == "duplicate-study"


def test_another_nodule_is_refused_with_its_code(site: Path, tmp_path: Path) -> None:
    write_scan(tmp_path, Scan("2019-03-01", {"n": ((-18.0, 0.0, 0.0), 4.0)}))
    other = read_nodule(tmp_path / "ct", tmp_path / "n.nrrd")
    with pytest.raises(SiteDataError, match=r"prior scan: .* mm apart .*or leave it out") as caught:
        cut_prior(nodule_at(site, VISITS[1][0]), other, 306.0, ROI, limits(site))
    assert caught.value.code == "nodule-mismatch"


def test_another_patient_is_refused(site: Path, tmp_path: Path) -> None:
    write_scan(tmp_path, Scan("2019-03-01", {"n": ((0.0, 0.0, 0.0), 4.0)}, seed=9))
    other = read_nodule(tmp_path / "ct", tmp_path / "n.nrrd")
    with pytest.raises(SiteDataError) as caught:
        cut_prior(nodule_at(site, VISITS[1][0]), other, 306.0, ROI, limits(site))
    assert caught.value.code == "registration"


def test_days_unlike_those_of_the_headers_are_warned_of(site: Path) -> None:
    def dated(nodule: ReadNodule, date: str) -> ReadNodule:
        return replace(nodule, ct=replace(nodule.ct, date=np.datetime64(date).item()))

    now = dated(nodule_at(site, VISITS[1][0]), VISITS[1][0])
    before = dated(nodule_at(site, VISITS[0][0]), VISITS[0][0])
    found = cut_prior(now, before, 100.0, ROI, limits(site))
    [finding] = found.findings
    assert finding.code == "dates-differ"
    assert "given as 100 days" in finding.message
    assert "it is 306" in finding.message
    assert cut_prior(now, before, 306.0, ROI, limits(site)).findings == ()


@pytest.mark.parametrize("days", [0.0, -3.0, 7306.0, float("nan")])
def test_days_that_make_no_sense_are_refused(tmp_path: Path, days: float) -> None:
    network = NETWORK.model_copy(update={"prior_scan": True})
    model = load_model(write_model(tmp_path, network=network))
    with pytest.raises(ConfigError, match="expected more than 0") as caught:
        check_prior(model, days)
    assert caught.value.code == "prior-days"


def test_a_model_without_prior_scan_refuses_one(tmp_path: Path) -> None:
    assert NetworkConfig().prior_scan is False
    model = load_model(write_model(tmp_path))
    with pytest.raises(ConfigError, match=r"takes no prior scan .*leave the options") as caught:
        check_prior(model, 100.0)
    assert caught.value.code == "prior-not-taken"
