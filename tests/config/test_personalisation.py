"""The study's personalisation and the site's word on it: ranges, and what doesn't go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nognet.config import load_site, load_study
from nognet.errors import ConfigError

PRIVACY = {"noise_multiplier": 1.0, "delta": 1e-3}


def written(folder: Path, name: str, values: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values))
    return path


def study_file(folder: Path, personalisation: dict[str, Any], **more: Any) -> Path:
    values = {"name": "tiny", "personalisation": personalisation, **more}
    return written(folder, "study.yaml", values)


def test_nothing_is_personal_by_default(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, "study.yaml", {"name": "tiny"}))
    assert not study.personalisation.is_on
    assert study.personalisation.cross_site == "none"


@pytest.mark.parametrize(
    ("values", "tunes"),
    [
        ({"local": "norms"}, False),
        ({"local": "norms+head", "fine_tune_steps": 5}, True),
        ({"ditto_lambda": 0.0}, True),
        ({"local": "head", "cross_site": "personalised"}, False),
    ],
)
def test_what_goes_together_is_read(tmp_path: Path, values: dict[str, Any], tunes: bool) -> None:
    read = load_study(study_file(tmp_path, values)).personalisation
    assert read.is_on
    assert read.tunes == tunes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"local": "everything"}, "personalisation.local"),
        ({"fine_tune_steps": -1}, "personalisation.fine_tune_steps"),
        ({"ditto_lambda": -0.5}, "personalisation.ditto_lambda"),
        ({"ditto_lamda": 1.0}, "did you mean 'ditto_lambda'"),
        ({"fine_tune_steps": 5, "ditto_lambda": 1.0}, "set one of them"),
        ({"cross_site": "personalised"}, "all have the global one"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_study(study_file(tmp_path, values))


def test_no_model_visits_other_sites_under_privacy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cross_site: none, or leave privacy out"):
        load_study(study_file(tmp_path, {"cross_site": "local"}, privacy=PRIVACY))


def test_privacy_leaves_alone_what_stays_at_the_site(tmp_path: Path) -> None:
    values = {"local": "norms", "fine_tune_steps": 3}
    assert load_study(study_file(tmp_path, values, privacy=PRIVACY)).personalisation.tunes


def test_a_site_shares_nothing_unless_it_says_so_and_never_under_privacy(tmp_path: Path) -> None:
    values: dict[str, Any] = {"name": "site_a", "studies": "studies.csv"}
    assert not load_site(written(tmp_path, "a.yaml", values)).share_models
    assert load_site(written(tmp_path, "b.yaml", {**values, "share_models": True})).share_models
    private = {**values, "share_models": True, "privacy": PRIVACY}
    with pytest.raises(ConfigError, match="share_models: false"):
        load_site(written(tmp_path, "c.yaml", private))
