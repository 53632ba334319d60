"""A site's side of secure sums on its disk: crashes, repeats, and what it refuses to give."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nognet_client.egress.gate import check_content
from nognet_client.masking.answers import secure_step
from nognet_client.masking.keys import peers_of, signing_key
from nognet_client.masking.release import of_masked_training, of_secure_step
from nognet_client.masking.rules import check_can_sum, check_may_leave_unmasked
from nognet_client.masking.state import MaskingState
from nognet_client.tasks import train

from nognet.config import load_site
from nognet.errors import (
    ConfigError,
    ConsentError,
    EgressError,
    PrivacyBudgetError,
    PrivacyError,
    ProvisionError,
    WireError,
)
from nognet.pki.site_keys import create_site_key
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.secagg.keys import identity_of
from nognet.wire.contract import contract, contract_hash
from nognet.wire.records import MaskedTrainTask, Rows, SecureReply, SecureTask, TrainTask
from tests.builders.egress import weights_of
from tests.builders.federation import make_site, make_study
from tests.builders.masking import NAMES, NONCE, TOKEN, Three
from tests.builders.private_work import private_work

pytestmark = pytest.mark.usefixtures("flower_task")


def test_every_step_is_answered_alike_when_it_is_asked_for_again(tmp_path: Path) -> None:
    three = Three(tmp_path)
    keys = three.keys()
    assert three.keys() == keys
    shares = three.shares(keys)
    assert three.shares(keys) == shares
    rows = three.for_site("site_a", shares)
    first, second = (three.train("site_a", rows) for _ in range(2))
    assert np.array_equal(first.reply.words, second.reply.words)
    survivors: Rows = {name: {} for name in NAMES}
    for name in NAMES[1:]:
        three.train(name, three.for_site(name, shares))
    signed = {name: three.step(name, "agree", survivors)[name] for name in NAMES}
    given = three.step("site_a", "reveal", signed)
    assert three.step("site_a", "reveal", signed) == given
    assert {name: set(row) for name, row in given.items()} == {n: {"seed"} for n in NAMES}


def test_other_weights_under_the_same_masks_are_refused(tmp_path: Path) -> None:
    three = Three(tmp_path)
    rows = three.for_site("site_a", three.shares(three.keys()))
    three.train("site_a", rows)
    with pytest.raises(PrivacyError, match="second time with something else"):
        three.train("site_a", rows, moved=0.5)


def test_another_update_after_a_lost_reply_is_refused_under_the_same_masks(tmp_path: Path) -> None:
    three = Three(tmp_path)
    rows = three.for_site("site_a", three.shares(three.keys()))
    three.train("site_a", rows)
    for path in (three.site("site_a").config.state / "replies").rglob("*.reply"):
        path.unlink()
    with pytest.raises(PrivacyError, match="second time"):
        three.train("site_a", rows, step=0.25)


def test_nothing_is_trained_for_shares_that_cant_be_opened(tmp_path: Path) -> None:
    three = Three(tmp_path)
    rows = three.for_site("site_a", three.shares(three.keys()))
    forged = {name: {"sealed": row["sealed"][:-1] + b"!"} for name, row in rows.items()}
    with pytest.raises(PrivacyError, match="can't be opened"):
        three.train("site_a", forged)
    assert not list((three.site("site_a").config.state / "replies").rglob("*.reply"))


def test_a_run_over_the_budget_is_not_trained_masked_either(tmp_path: Path) -> None:
    """Nobody joined here, and one round alone would fit."""
    privacy = {"noise_multiplier": 2.0, "delta": 1e-2, "max_epsilon": 2.0}
    three = Three(tmp_path, rounds=4, privacy=privacy)
    rows = three.for_site("site_a", three.shares(three.keys()))
    with pytest.raises(PrivacyBudgetError) as caught:
        three.train("site_a", rows)
    assert caught.value.code == "budget-run"
    assert not list((three.site("site_a").config.state / "replies").rglob("*.reply"))


def test_a_masked_reply_tells_what_its_run_spent_and_its_receipt_what_all_did(
    tmp_path: Path,
) -> None:
    three = Three(tmp_path, privacy={"noise_multiplier": 2.0, "delta": 1e-2})
    three.work = private_work()
    site = three.site("site_a")
    before = make_study(tmp_path, name="before", privacy=three.study.privacy)
    digest, weights = contract_hash(contract(before)), weights_of(before)
    train(TrainTask(1, before.for_sites(), digest, "ef" * 16, weights), site, private_work())
    masked = three.train("site_a", three.for_site("site_a", three.shares(three.keys())))
    plain = TrainTask(
        1, three.study.for_sites(), contract_hash(contract(three.study)), TOKEN, weights
    )
    out = of_masked_training(MaskedTrainTask(plain, NONCE, {}), masked, site)
    check_content(out.content, out.form)

    def epsilon(rounds: int) -> float:
        return PrivacyHistory((NoisedSteps(2.0, 2 / 3, 2 * rounds),)).epsilon(1e-2)

    told = {"epsilon": epsilon(1), "delta": 1e-2, "seconds": 10.0}
    assert dict(out.content.metric_records["metrics"]) == told
    assert (out.facts.epsilon, out.facts.epsilon_charged) == (epsilon(1), epsilon(2))
    wrong = replace(masked, reply=replace(masked.reply, epsilon=epsilon(2)))
    out = of_masked_training(MaskedTrainTask(plain, NONCE, {}), wrong, site)
    with pytest.raises(EgressError, match="number 'epsilon' is"):
        check_content(out.content, out.form)


def test_a_session_begins_once(tmp_path: Path) -> None:
    three = Three(tmp_path)
    three.keys()
    three.step("site_a", "keys", {}, session="ef" * 16)
    with pytest.raises(PrivacyError, match="a second time; each needs new keys") as caught:
        three.step("site_a", "keys", {})
    assert caught.value.code == "secure-replay"


def test_steps_of_a_session_that_did_not_begin_are_refused(tmp_path: Path) -> None:
    three = Three(tmp_path)
    with pytest.raises(PrivacyError, match="no keys of this session"):
        three.step("site_a", "agree", {name: {} for name in NAMES})


def test_no_session_begins_outside_the_consent(tmp_path: Path) -> None:
    three = Three(tmp_path)
    path = three.paths["site_a"]
    path.write_text(f"{path.read_text()}consent: {{studies: [another]}}\n")
    with pytest.raises(ConsentError) as caught:
        three.step("site_a", "keys", {})
    assert caught.value.code == "consent-study"
    assert not list(three.site("site_a").config.state.glob("secure/*/done.json"))
    with pytest.raises(ConsentError):
        three.step("site_b", "keys", {}, round_number=99)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": {"site_a": {"seal": bytes(257)}}},
        {"rows": {"site_a": {"name": b"Miller"}}},
        {"rows": {"Miller, Anna": {"seal": b"x"}}},
        {"rows": {f"site_{number}": {"seal": b"x"} for number in range(65)}},
        {"round_number": 2},
        {"session": "ef" * 16},
        {"step": "agree"},
        {"site": "site_b"},
    ],
)
def test_the_gate_holds_a_short_step_against_its_task(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    three = Three(tmp_path)
    site, study = three.site("site_a"), three.study
    digest = contract_hash(contract(study))
    task = SecureTask("keys", 1, study.for_sites(), digest, TOKEN, NONCE)
    reply = secure_step(task, site)

    def leaves(reply: SecureReply) -> None:
        asked = of_secure_step(task, reply, site)
        check_content(asked.content, asked.form)

    leaves(reply)
    with pytest.raises((EgressError, WireError)):
        leaves(replace(reply, **changes))


def test_a_study_without_secure_sums_is_asked_no_keys(tmp_path: Path) -> None:
    three = Three(tmp_path)
    three.study = make_study(tmp_path)
    with pytest.raises(PrivacyError, match="has no secure sums"):
        three.step("site_a", "keys", {})


def test_rows_without_what_they_need_are_refused(tmp_path: Path) -> None:
    three = Three(tmp_path)
    keys = dict(three.keys())
    keys["site_b"] = {"identity": b"x"}
    with pytest.raises(PrivacyError, match="a row without 'seal'"):
        three.step("site_a", "shares", keys)


def test_damaged_state_is_said_to_be_so(tmp_path: Path) -> None:
    three = Three(tmp_path)
    three.keys()
    kept = MaskingState(three.site("site_a").config.state, TOKEN)
    (kept.folder / "done.json").write_text("[]")
    with pytest.raises(WireError, match="damaged"):
        three.step("site_a", "keys", {}, session="ef" * 16)
    (kept.folder / "session.json").write_text("{}")
    with pytest.raises(WireError, match="damaged"):
        three.step("site_a", "keys", {})


def test_what_a_study_sums_securely_is_not_given_in_the_clear(tmp_path: Path) -> None:
    three = Three(tmp_path)
    with pytest.raises(PrivacyError, match="asks for one in the clear"):
        check_may_leave_unmasked(three.study.for_sites(), three.site("site_a").config)


def test_a_site_that_requires_secure_sums_takes_part_in_nothing_else(tmp_path: Path) -> None:
    path, study = make_site(tmp_path, "site_a"), make_study(tmp_path).for_sites()
    check_may_leave_unmasked(study, load_site(path))
    _edit(path, secure_aggregation={"trust_coordinator": True})
    with pytest.raises(PrivacyError, match="secure_aggregation alone") as caught:
        check_may_leave_unmasked(study, load_site(path))
    assert caught.value.code == "secure-required"
    _edit(path, secure_aggregation={"trust_coordinator": True, "required": False})
    check_may_leave_unmasked(study, load_site(path))


def test_a_deployed_site_that_names_no_peers_refuses(tmp_path: Path) -> None:
    path = make_site(tmp_path, "site_a")
    create_site_key("site_a", tmp_path / "keys")
    server = {"address": "localhost:1", "ca": "ca.crt", "key": str(tmp_path / "keys/site_a.key")}
    _edit(path, server=server)
    with pytest.raises(PrivacyError, match="doesn't say whose keys to believe"):
        peers_of(load_site(path))


def test_a_study_that_a_site_will_give_no_update_to_is_refused_when_it_joins(
    tmp_path: Path,
) -> None:
    three, plain = Three(tmp_path), make_study(tmp_path).for_sites()
    path = three.paths["site_a"]
    check_can_sum(three.study.for_sites(), load_site(path))
    check_can_sum(plain, load_site(path))
    _edit(path, secure_aggregation={"trust_coordinator": True})
    with pytest.raises(PrivacyError, match="secure_aggregation alone"):
        check_can_sum(plain, load_site(path))
    _edit(path, secure_aggregation={"peers": str(tmp_path / "nowhere")})
    with pytest.raises(ProvisionError, match="no such folder"):
        check_can_sum(three.study.for_sites(), load_site(path))


def test_peers_are_the_keys_of_the_folder_and_the_sites_own(tmp_path: Path) -> None:
    path = make_site(tmp_path, "site_a")
    create_site_key("site_b", tmp_path / "others")
    _edit(path, secure_aggregation={"peers": str(tmp_path / "others")})
    site = load_site(path)
    assert set(found := peers_of(site) or {}) == {"site_a", "site_b"}
    assert found["site_a"] == identity_of(signing_key(site))


def test_a_coordinator_that_is_trusted_is_said_so_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_site(tmp_path, "site_a")
    _edit(path, secure_aggregation={"trust_coordinator": True})
    assert peers_of(load_site(path)) is None
    assert "it can make sites up" in caplog.text


@pytest.mark.parametrize("section", [{}, {"peers": "keys", "trust_coordinator": True}])
def test_peers_or_trust_must_be_chosen(tmp_path: Path, section: dict[str, Any]) -> None:
    path = make_site(tmp_path, "site_a")
    _edit(path, secure_aggregation=section)
    with pytest.raises(ConfigError, match="not both"):
        load_site(path)


@pytest.mark.parametrize("content", [None, b"no key"])
def test_a_missing_or_wrong_key_is_said_to_be_so(tmp_path: Path, content: bytes | None) -> None:
    path = make_site(tmp_path, "site_a")
    key = tmp_path / "site_a.key"
    if content is not None:
        key.write_bytes(content)
    _edit(path, server={"address": "localhost:1", "ca": "ca.crt", "key": str(key)})
    with pytest.raises(ProvisionError, match=r"site_a\.key"):
        signing_key(load_site(path))


def test_the_done_list_remembers_rounds_and_holds_no_secret(tmp_path: Path) -> None:
    three = Three(tmp_path)
    shares = three.shares(three.keys())
    for name in NAMES:
        three.train(name, three.for_site(name, shares))
    three.step("site_a", "agree", {name: {} for name in NAMES})
    kept = MaskingState(three.site("site_a").config.state, TOKEN)
    found = json.loads((kept.folder / "done.json").read_text())
    assert found == {"sessions": {NONCE: 1}, "agreed": {"1": list(NAMES)}, "noised": {}}


def _edit(path: Path, **changes: Any) -> None:
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | changes))
