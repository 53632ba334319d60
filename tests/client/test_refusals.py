"""Why a site is not used: its own log says it, whoever finds it out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nognet_client.site import Site
from nognet_client.tasks import Work, join

from nognet.errors import WireError
from nognet.wire.contract import contract
from nognet.wire.records import JoinTask
from tests.builders.federation import make_site, make_study, opened


def log_of_joining(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: str = "", **site: Any
) -> list[tuple[str, str]]:
    study = make_study(tmp_path)
    task = JoinTask(study.for_sites(), contract(study), "ab" * 16)
    config, prepared = opened(make_site(tmp_path, "site_a", **site))
    caplog.set_level(logging.INFO, "nognet")
    join(replace(task, refusal=refusal), Site(config, prepared), Work())
    said = [record for record in caplog.records if record.module == "tasks"]
    return [(record.levelname, record.getMessage()) for record in said]


@pytest.fixture(autouse=True)
def _propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)


def test_a_site_that_may_take_part_asks_to_and_does_not_say_that_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert log_of_joining(tmp_path, caplog) == [("INFO", "site_a asks to join study 'tiny'")]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"pairs": 0}, "it has no training pairs: `nognet check` says why"),
        ({"min_patients": 5}, "fewer training patients than egress.min_patients (3, expected at"),
    ],
)
def test_what_its_own_data_lack_is_an_error_at_the_site(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, site: dict[str, Any], words: str
) -> None:
    [(level, line)] = log_of_joining(tmp_path, caplog, **site)
    assert level == "ERROR"
    assert line.startswith("site_a can't take part in study 'tiny': ")
    assert words in line


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("registered-name", "its key is registered under another name"),
        ("name-taken", "another site takes part under this name"),
        ("quarantined", "`nognet-server release` ends that"),
        ("roi-size-vox", "'roi-size-vox' differs"),
    ],
)
def test_what_the_coordinator_refused_is_said_at_the_site_as_of_its_last_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, words: str
) -> None:
    (level, line), *asks = log_of_joining(tmp_path, caplog, code)
    assert level == "WARNING"  # no error: it may be mended by now
    assert line.startswith("site_a was not used in study 'tiny' when it last answered (")
    assert line.endswith("); it is asked anew")
    assert words in line
    assert [level for level, _ in asks] == ["INFO"]


def test_no_text_of_a_coordinator_gets_into_the_log(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    content = JoinTask(study.for_sites(), contract(study), "ab" * 16).to_content()
    content["config"]["refusal"] = "all is well\nCRITICAL call +1 555"
    with pytest.raises(WireError):
        JoinTask.from_content(content)
