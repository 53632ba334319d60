"""When a site trains, and until when it agrees, by its own clock."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from nognet_client.consent import door
from nognet_client.consent.objections import about_hours, about_study

from nognet.errors import ConsentError
from tests.builders.consent import (
    NOON,
    request,
    site_with,
)
from tests.builders.federation import make_study


@pytest.mark.parametrize(
    ("hours", "clock", "is_open"),
    [
        ("19:00-06:00", "18:59", False),
        ("19:00-06:00", "19:00", True),
        ("19:00-06:00", "23:59", True),
        ("19:00-06:00", "00:00", True),
        ("19:00-06:00", "05:59", True),
        ("19:00-06:00", "06:00", False),
        ("09:00-17:00", "08:59", False),
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "16:59", True),
        ("09:00-17:00", "17:00", False),
    ],
)
@pytest.mark.parametrize(("zone", "offset"), [("UTC", 0), ("Asia/Kolkata", 330)])
def test_hours_hold_on_the_sites_own_clock(
    tmp_path: Path, hours: str, clock: str, is_open: bool, zone: str, offset: int
) -> None:
    site = site_with(tmp_path, hours=hours, timezone=zone)
    hour, minute = map(int, clock.split(":"))
    minutes = (60 * hour + minute - offset) % 1440
    now = datetime(2026, 3, 2, minutes // 60, minutes % 60, tzinfo=UTC)
    found = [o.code for o in about_hours(request(site, make_study(tmp_path)), now)]
    assert found == ([] if is_open else ["consent-hours"])


@pytest.mark.parametrize(
    ("now", "clock"),
    [
        (datetime(2026, 1, 15, 18, 30, tzinfo=UTC), "19:30 CET"),
        (datetime(2026, 7, 15, 18, 30, tzinfo=UTC), "20:30 CEST"),
    ],
)
def test_hours_follow_summer_time(tmp_path: Path, now: datetime, clock: str) -> None:
    site = site_with(tmp_path, hours="21:00-22:00", timezone="Europe/Berlin")
    (found,) = about_hours(request(site, make_study(tmp_path)), now)
    assert clock in found.asked


def test_the_last_day_of_consent_ends_at_the_sites_midnight(tmp_path: Path) -> None:
    site = site_with(tmp_path, expires=date(2026, 3, 2), timezone="America/New_York")
    asked = request(site, make_study(tmp_path))
    late = datetime(2026, 3, 3, 4, 59, tzinfo=UTC)
    assert list(about_study(asked, late)) == []
    assert [o.code for o in about_study(asked, late.replace(hour=5, minute=0))] == [
        "consent-expired"
    ]


def test_outside_hours_training_is_declined_and_a_kept_reply_is_given_all_the_same(
    tmp_path: Path,
) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, hours="19:00-06:00", timezone="UTC")
    asked = request(site, study)
    door.check_joining(asked, now=NOON)
    door.check_training(asked, 1, now=NOON)  # which a kept reply passes
    with pytest.raises(ConsentError, match=r"asked: training at 12:00 UTC; accepted: 19:00-06:00"):
        door.begin(asked, "rounds", "aa", now=NOON)
    door.begin(asked, "evaluations", "aa", now=NOON)
    door.begin(asked, "rounds", "aa", now=NOON.replace(hour=20))
