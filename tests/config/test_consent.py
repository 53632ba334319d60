from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest

from nognet.config import ConsentConfig, load_site
from nognet.config.consent import AcceptedStudy
from nognet.errors import ConfigError

SITE = "name: site_a\nstudies: studies.csv\nconsent:\n"


def consent_of(folder: Path, text: str) -> ConsentConfig:
    path = folder / "site.yaml"
    path.write_text(SITE + "".join(f"  {line}\n" for line in text.splitlines()))
    consent = load_site(path).consent
    assert consent is not None
    return consent


def test_all_limits_are_read_from_yaml(tmp_path: Path) -> None:
    digest = "0f" * 32
    consent = consent_of(
        tmp_path,
        f"""studies: [lung-growth, {{name: other, sha256: {digest}}}]
releases: ["0.4.0"]
max_rounds: 40
metrics: [dsc, loss]
hours: 19:00-06:30
timezone: Europe/Berlin
expires: 2027-01-31""",
    )
    assert consent.studies == (
        AcceptedStudy(name="lung-growth"),
        AcceptedStudy(name="other", sha256=digest),
    )
    assert consent.open_hours == (time(19), time(6, 30))
    assert consent.expires == date(2027, 1, 31)
    assert (consent.lets_out("dsc"), consent.lets_out("loss"), consent.lets_out("psnr")) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("max_round: 3", "did you mean 'max_rounds'"),
        ("max_rounds: 0", "consent.max_rounds"),
        ("hours: 7 to 9", "two times of day"),
        ("hours: 25:00-06:00", "two times of day"),
        ("hours: 06:00-06:00", "leave hours out"),
        ("timezone: Europe/Berlni", "not a time zone"),
        ("timezone: ../../etc/passwd", "not a time zone"),
        ("expires: soon", "consent.expires"),
        ("studies: []", "consent.studies"),
        ("studies: [a, a]", "name 'a' twice"),
        ("studies: [{name: a, sha256: abc}]", "consent.studies.0.sha256"),
        ("metrics: [dice]", "consent.metrics.0"),
        ("max_delta: 1.0e-4", "add max_epsilon, or leave max_delta out"),
        ("max_delta: 0.5", "consent.max_delta"),
    ],
)
def test_a_faulty_limit_is_named_and_never_ignored(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        consent_of(tmp_path, text)


OWN_NOISE = "privacy: {noise_multiplier: 1.0, delta: 1.0e-3}\n"


@pytest.mark.parametrize("bound", ["max_epsilon: 4", "own privacy"])
def test_privacy_is_required_with_a_bound_or_not_at_all(tmp_path: Path, bound: str) -> None:
    path = tmp_path / "site.yaml"
    alone = SITE + "  require_privacy: true\n"
    path.write_text(alone)
    with pytest.raises(
        ConfigError, match=r"noise of any size.*add consent\.max_epsilon, or privacy"
    ):
        load_site(path)
    path.write_text(alone + (OWN_NOISE if bound == "own privacy" else f"  {bound}\n"))
    assert load_site(path).consent is not None


def test_evaluations_go_with_rounds_unless_they_are_set() -> None:
    assert ConsentConfig().evaluations_allowed is None
    assert ConsentConfig(max_rounds=30).evaluations_allowed == 70
    assert ConsentConfig(max_rounds=30, max_evaluations=31).evaluations_allowed == 31
    assert ConsentConfig(max_evaluations=5).evaluations_allowed == 5


def test_without_consent_nothing_is_limited() -> None:
    consent = ConsentConfig()
    assert consent.lets_out("dsc")
    assert consent.lets_out("loss")
    assert consent.open_hours is None
