"""Faults on purpose at deployed sites: in rehearsals alone, and never without a word."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from nognet_client.app import app
from nognet_client.chaos import NO_REHEARSAL, ChaoticApp, deployed_chaotic_app
from nognet_client.processes.worker import installed_app
from nognet_client.rehearsal import chaos_of, check_rehearsal

from nognet.config import SiteConfig, StudyConfig, load_site
from nognet.errors import ConfigError
from nognet.wire.contract import contract
from nognet.wire.records import FAULTS, JoinReply, JoinTask
from tests.builders.federation import make_site, make_study

pytestmark = pytest.mark.usefixtures("flower_task")


def site(*, rehearsal: bool) -> SiteConfig:
    return SiteConfig(name="site_a", studies=Path("studies.csv"), rehearsal=rehearsal)


@pytest.mark.parametrize("study_is", [True, False])
@pytest.mark.parametrize("site_is", [True, False])
def test_rehearsals_and_real_runs_keep_apart(
    tmp_path: Path, *, study_is: bool, site_is: bool
) -> None:
    study, config = make_study(tmp_path, rehearsal=study_is), site(rehearsal=site_is)
    if study_is == site_is:
        check_rehearsal(study, config)
        return
    with pytest.raises(ConfigError) as refused:
        check_rehearsal(study, config)
    assert refused.value.code == ("rehearsal" if study_is else "no-rehearsal")


def test_faults_need_a_site_for_rehearsals() -> None:
    with pytest.raises(ConfigError, match="does not say `rehearsal: true`"):
        chaos_of(site(rehearsal=False), "drop@3")
    everybodys = "drop:site_b@3, nan:site_a@2"
    assert chaos_of(site(rehearsal=True), everybodys) == "nan:site_a@2"
    assert chaos_of(site(rehearsal=True), "drop:site_b@3") == ""


def test_without_faults_the_installed_app_knows_nothing_of_them() -> None:
    assert installed_app() is app
    assert not isinstance(app, ChaoticApp)
    assert isinstance(installed_app("drop:site_a@3"), ChaoticApp)


def asked(study: StudyConfig, kind: str = "query") -> Message:
    task = JoinTask(study.for_sites(), contract(study), "ab" * 16)
    content = task.to_content()
    if kind == "train":
        record = ConfigRecord({"study": study.for_sites(), "server-round": 1})
        content = RecordDict({"config": record})
    return Message(content, 1, kind)


def context(tmp_path: Path) -> Context:
    path = make_site(tmp_path, "site_a")
    path.write_text(path.read_text("utf-8") + "rehearsal: true\n", "utf-8")
    assert load_site(path).rehearsal
    node = {"site-config": str(path)}
    return Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})


def test_a_site_that_fails_on_purpose_answers_nothing_of_a_real_study(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing, where = deployed_chaotic_app("drop:site_a@1, nan:site_a@2"), context(tmp_path)
    for kind in ("query", "train"):
        reply = failing(asked(make_study(tmp_path), kind), where)
        assert reply.error.reason == NO_REHEARSAL
    bare = Message(RecordDict({"config": ConfigRecord({"x": 1})}), 1, "train")
    assert failing(bare, where).error.reason == NO_REHEARSAL  # a message without a study, too
    with caplog.at_level(logging.WARNING, logger="nognet.chaos"):
        reply = failing(asked(make_study(tmp_path, rehearsal=True), "train"), where)
    assert reply.error.reason == "SiteDropped:chaos"
    assert "chaos: site_a is gone in round 1" in caplog.text


def test_it_tells_the_coordinator_when_it_joins(tmp_path: Path) -> None:
    failing = deployed_chaotic_app("drop:site_a@1, nan:site_a@2, nan:site_a@3")
    reply = failing(asked(make_study(tmp_path, rehearsal=True)), context(tmp_path))
    assert JoinReply.from_content(reply.content).versions[FAULTS] == "drop.nan"
