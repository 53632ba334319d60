from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nognet.data.site.pseudonym import Pseudonyms, load_or_make_key, write_key
from nognet.errors import SiteDataError


def test_a_key_is_made_once_and_for_the_site_alone(tmp_path: Path) -> None:
    first = load_or_make_key(tmp_path / "state")
    assert load_or_make_key(tmp_path / "state") == first
    assert stat.S_IMODE((tmp_path / "state" / "pseudonym.key").stat().st_mode) == 0o600
    assert load_or_make_key(tmp_path / "other") != first
    write_key(tmp_path / "state", bytes(32))  # of two at once the first wins
    assert load_or_make_key(tmp_path / "state") == first
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["pseudonym.key"]


def test_pseudonyms_need_the_key_and_tell_parts_apart() -> None:
    one, other = Pseudonyms(bytes(32)), Pseudonyms(bytes([1]) * 32)
    assert one.of_patient("Doe") == one.of_patient("Doe")
    assert one.of_patient("Doe") != other.of_patient("Doe")
    assert one.of_pair("a", "bc", "1", "2") != one.of_pair("ab", "c", "1", "2")
    assert repr(bytes(32)) not in repr(one)


def test_an_open_or_damaged_key_is_refused(tmp_path: Path) -> None:
    load_or_make_key(tmp_path)
    key = tmp_path / "pseudonym.key"
    key.chmod(0o644)
    with pytest.raises(SiteDataError, match="chmod 600"):
        load_or_make_key(tmp_path)
    key.write_text("abc")
    key.chmod(0o600)
    with pytest.raises(SiteDataError, match="not a key of 32 bytes"):
        load_or_make_key(tmp_path)
