"""An older ledger put back with its mark: the audit log tells more than it charges."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from nognet_client.app import build_app
from nognet_client.spent import check_told_is_charged
from nognet_client.tasks import Work

from nognet.audit.log import egress_folder
from nognet.config import SiteConfig, StudyConfig
from nognet.errors import PrivacyError
from nognet.fit.budget import ledger_of
from nognet.fit.weights import initial_weights, weight_spec
from nognet.privacy import ledger_file
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import TrainTask
from tests.builders.federation import make_site, make_study, opened

pytestmark = pytest.mark.usefixtures("flower_task")


def trained(site: Path, study: StudyConfig, number: int) -> Message:
    weights = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    digest = contract_hash(contract(study))
    arrays, config = TrainTask(number, study.for_sites(), digest, "ab" * 16, weights).to_records()
    content = RecordDict({"arrays": arrays, "config": config})
    node = {"site-config": str(site)}
    context = Context(run_id=1, node_id=2, node_config=node, state=RecordDict(), run_config={})
    return build_app(Work())(Message(content, 2, MessageType.TRAIN), context)


@pytest.fixture
def put_back(tmp_path: Path) -> tuple[StudyConfig, SiteConfig, Path]:
    """Train two rounds under privacy, then put the ledger's folder back as after the first."""
    site = make_site(tmp_path, "site_a")
    study = make_study(tmp_path, rounds=3, privacy={"noise_multiplier": 2.0, "delta": 1e-2})
    config, _ = opened(site)
    ledger, older = config.state / "privacy", tmp_path / "older"
    for number in (1, 2):
        assert trained(site, study, number).has_content()
        if number == 1:
            shutil.copytree(ledger, older)
    check_told_is_charged(study, config)
    shutil.rmtree(ledger)
    shutil.copytree(older, ledger)
    return study, config, site


def test_a_ledger_put_back_with_its_mark_is_found_by_the_log(
    put_back: tuple[StudyConfig, SiteConfig, Path],
) -> None:
    study, config, site = put_back
    assert len(ledger_of(config).entries()) == 1  # nothing in its folder can tell
    with pytest.raises(PrivacyError, match=r"round 2 of run .* left with its epsilon") as caught:
        check_told_is_charged(study, config)
    assert caught.value.code == "ledger-behind"
    refused = trained(site, study, 3)
    assert refused.error.reason == "PrivacyError:ledger-behind"
    assert len(ledger_of(config).entries()) == 1


def test_an_archived_log_lets_the_officer_accept_the_ledger_as_it_is(
    put_back: tuple[StudyConfig, SiteConfig, Path], tmp_path: Path
) -> None:
    """docs/privacy.md, 'Where there is no newer copy'."""
    study, config, site = put_back
    mark = ledger_of(config).folder / ledger_file.MARK_NAME
    mark.write_text(f"{mark.read_text().split()[0]}\n2\n")
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("audit.jsonl", "audit-head.json", "receipts"):
        (egress_folder(config.state) / name).rename(archive / name)
    assert trained(site, study, 3).error.reason == "PrivacyError:ledger-behind"  # the mark's word
    mark.rename(archive / mark.name)
    assert trained(site, study, 3).has_content()
    assert len(ledger_of(config).entries()) == 2


def test_without_privacy_nobody_looks(put_back: tuple[StudyConfig, SiteConfig, Path]) -> None:
    study, config, _ = put_back
    check_told_is_charged(study.model_copy(update={"privacy": None}), config)
