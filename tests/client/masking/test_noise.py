"""Noise that a site adds before masking: once a session, counted, the same when asked again."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.egress.replies import checked_update
from nognet_client.masking.answers import masked_train
from nognet_client.masking.noise import check_may_noise
from nognet_client.masking.release import of_masked_training
from nognet_client.masking.rules import check_can_sum, check_may_leave_unmasked
from nognet_client.masking.state import MaskingState
from nognet_client.tasks import Work

from nognet.config import SiteConfig
from nognet.config.secure_aggregation import SitePeersConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.fit.site_privacy import plan_for
from nognet.fit.weights import initial_weights, weight_spec
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.secagg.masks import with_masks
from nognet.secagg.noised import NoisedCode, decode_noised
from nognet.secagg.session import Rules, Session
from nognet.secagg.site_side import mask
from nognet.secagg.site_state import from_text
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import MaskedTrainTask, Rows, TrainTask
from tests.builders.federation import make_study, stub_work
from tests.builders.masking import NAMES, NONCE, TOKEN, Three

pytestmark = pytest.mark.usefixtures("flower_task")
OTHER = "ef" * 16
CENTRAL = {"noise_multiplier": 2.0, "clip_norm": 0.5, "delta": 1e-3, "max_epsilon": 9.0}


def noisy(folder: Path, *, releases: int | None = None, **central: Any) -> Three:
    """Three sites that make noise; `releases` sets the limit to what so many cost."""
    changes = {
        "strategy": {"name": "fedavg", "weighting": "equal"},
        "federation": {"minimum_sites": 3, "expected_sites": 3},
        "rounds": 1,
        "secure_aggregation": {},
        "central_privacy": {**CENTRAL, **central},
    }
    if releases is not None:
        plan = plan_for(make_study(folder, **changes))
        assert plan is not None
        limit = plan.accounts(PrivacyHistory((NoisedSteps(2.0, 1.0, releases),))).epsilon
        changes["central_privacy"] = {**CENTRAL, "max_epsilon": limit}
    return Three(folder, **changes)


def begun(three: Three, nonce: str = NONCE) -> dict[str, Rows]:
    shares = three.shares(three.keys(session=nonce), session=nonce)
    return {name: three.for_site(name, shares) for name in NAMES}


def kept(three: Three, name: str = "site_a") -> MaskingState:
    return MaskingState(three.site(name).config.state, TOKEN)


def test_a_message_that_comes_again_gets_the_same_noise_and_counts_once(tmp_path: Path) -> None:
    three = noisy(tmp_path)
    rows = begun(three)["site_a"]
    first, second = (three.train("site_a", rows) for _ in range(2))
    assert np.array_equal(first.reply.words, second.reply.words)
    assert first.noise == second.noise
    assert first.noise["releases"] == 1
    done = json.loads((kept(three).folder / "done.json").read_text())
    assert done["noised"] == {NONCE: CENTRAL["noise_multiplier"]}


def test_another_session_of_the_round_has_other_noise_and_is_a_release_more(tmp_path: Path) -> None:
    three = noisy(tmp_path, releases=2)
    seen = []
    for nonce in (NONCE, OTHER):
        given = three.train("site_a", begun(three, nonce)["site_a"], nonce=nonce)
        seen.append((given.noise["releases"], given.noise["site_epsilon"]))
    assert [count for count, _ in seen] == [1, 2]
    assert seen[0][1] < seen[1][1]
    rows = begun(three, "aa" * 16)["site_a"]
    with pytest.raises(
        PrivacyBudgetError, match="gave 2 noised updates, of all studies and runs"
    ) as caught:
        three.train("site_a", rows, nonce="aa" * 16)
    assert caught.value.code == "budget-site"


def test_what_it_gave_to_other_runs_counts_too_up_to_the_sites_own_limit(tmp_path: Path) -> None:
    three = noisy(tmp_path, releases=2)
    config = three.site("site_a").config
    for run in ("11" * 16, "22" * 16):
        given = MaskingState(config.state, run)
        given.note_noised(Session(run, 1, OTHER, "00" * 32), CENTRAL["noise_multiplier"])
    rows = begun(three)["site_a"]
    with pytest.raises(PrivacyBudgetError, match=r"2 noised updates.*\(central_privacy.max_eps"):
        three.train("site_a", rows)
    plan, rules = plan_for(three.study), Rules(2 / 3)
    assert plan is not None
    peers = SitePeersConfig(trust_coordinator=True, max_site_epsilon=CENTRAL["max_epsilon"])
    allowed = config.model_copy(update={"secure_aggregation": peers})
    check_may_noise(three.study, plan, _state(three), kept(three), allowed, rules)
    peers = peers.model_copy(update={"max_site_epsilon": 0.5})
    strict = config.model_copy(update={"secure_aggregation": peers})
    with pytest.raises(PrivacyBudgetError, match=r"at most 0\.5 \(secure_aggregation.max_site_eps"):
        check_may_noise(three.study, plan, _state(three), kept(three), strict, rules)


def limited(config: SiteConfig, limit: float | None, **more: Any) -> SiteConfig:
    peers = SitePeersConfig(trust_coordinator=True, max_site_epsilon=limit, **more)
    return config.model_copy(update={"secure_aggregation": peers})


def test_a_site_that_limits_its_epsilon_trains_for_no_sum_without_noise(tmp_path: Path) -> None:
    three = Three(tmp_path)
    rows, site = begun(three)["site_a"], three.site("site_a")
    trained: list[str] = []

    def seen(*_: Any, **__: Any) -> Any:
        trained.append("trained")
        raise MemoryError

    task = replace(_task(three), rows=rows)
    strict = replace(site, config=limited(site.config, 20.0))
    with pytest.raises(PrivacyError, match=r"the sites make no noise.*within 20 ") as caught:
        masked_train(task, strict, Work(train=seen), checked_update)
    assert caught.value.code == "secure-no-noise"
    assert not trained
    lenient = replace(site, config=limited(site.config, None))
    with pytest.raises(MemoryError):
        masked_train(task, lenient, Work(train=seen), checked_update)


@pytest.mark.parametrize(
    "without_noise",
    [
        {},
        {"federation": {"minimum_sites": 3}, "secure_aggregation": {}},
        {
            "strategy": {"name": "fedavg", "weighting": "equal"},
            "federation": {"minimum_sites": 3, "expected_sites": 3},
            "central_privacy": CENTRAL,
        },
    ],
    ids=["in the clear", "a plain sum", "noise of the coordinator"],
)
def test_a_site_that_limits_its_epsilon_joins_nothing_without_noise_of_the_sites(
    tmp_path: Path, without_noise: dict[str, Any]
) -> None:
    three = noisy(tmp_path)
    config = three.site("site_a").config
    study = make_study(tmp_path, **without_noise).for_sites()
    strict = limited(config, 20.0, required=False)
    with pytest.raises(PrivacyError) as caught:
        check_can_sum(study, strict)
    assert caught.value.code == "secure-no-noise"
    check_can_sum(study, limited(config, None, required=False))
    check_can_sum(three.study.for_sites(), strict)
    if "secure_aggregation" not in without_noise:
        with pytest.raises(PrivacyError) as caught:
            check_may_leave_unmasked(study, strict)
        assert caught.value.code == "secure-no-noise"


def releases_allowed(three: Three, config: SiteConfig) -> int:
    """Count the updates that a site gives before it stops; each is noted as of another run."""
    plan = plan_for(three.study)
    assert plan is not None
    for given in range(20):
        try:
            check_may_noise(three.study, plan, _state(three), kept(three), config, Rules(2 / 3))
        except PrivacyBudgetError:
            return given
        run = f"{given:032x}"
        MaskingState(config.state, run).note_noised(Session(run, 1, OTHER, "00" * 32), 2.0)
    raise AssertionError("it never stopped")


@pytest.mark.parametrize("own_delta", [None, 1e-4])
def test_no_delta_of_a_study_lets_a_site_give_more_than_its_own_does(
    tmp_path: Path, own_delta: float | None
) -> None:
    floor = 1e-3 if own_delta is None else own_delta
    plan = plan_for(noisy(tmp_path / "plan", delta=floor).study)
    assert plan is not None
    limit = plan.accounts(PrivacyHistory((NoisedSteps(2.0, 1.0, 4),))).epsilon
    allowed = {}
    for delta in (1e-9, floor, 2e-2, 0.15):  # the last as a study of three sites may have
        three = noisy(tmp_path / f"{delta}", delta=delta, max_epsilon=1e3)
        begun(three)
        own = {} if own_delta is None else {"max_site_delta": own_delta}
        config = limited(three.site("site_a").config, limit, **own)
        allowed[delta] = releases_allowed(three, config)
    assert allowed == {1e-9: allowed[1e-9], floor: 4, 2e-2: 4, 0.15: 4}
    assert allowed[1e-9] < 4


def test_the_receipt_has_the_delta_by_which_the_site_counts(tmp_path: Path) -> None:
    three = noisy(tmp_path, delta=0.15)
    rows, site = begun(three)["site_a"], three.site("site_a")
    task = replace(_task(three), rows=rows)
    plan = plan_for(three.study)
    assert plan is not None
    strict = replace(site, config=limited(site.config, 20.0))
    noise = masked_train(task, strict, stub_work(), checked_update).noise
    assert noise is not None
    assert noise["site_delta"] == 1e-3
    assert noise["site_epsilon"] > plan.accounts(plan.whole_run()).epsilon


def test_a_site_killed_before_its_answer_left_has_counted_it_and_answers_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = noisy(tmp_path)
    rows = begun(three)["site_a"]
    words: list[np.ndarray] = []

    def seen_then_killed(state: Any, incoming: Any, plain: Any, *more: Any) -> Any:
        words.append(plain)
        if len(words) == 1:
            raise KeyboardInterrupt
        return mask(state, incoming, plain, *more)

    monkeypatch.setattr("nognet.secagg.site_side.mask", seen_then_killed)
    with pytest.raises(KeyboardInterrupt):
        three.train("site_a", rows)
    assert list(json.loads((kept(three).folder / "done.json").read_text())["noised"]) == [NONCE]
    three.train("site_a", rows)
    assert np.array_equal(words[0], words[1])


def test_another_update_never_leaves_with_the_same_noise(tmp_path: Path) -> None:
    three = noisy(tmp_path, clip_norm=1000.0)
    rows = begun(three)["site_a"]
    three.train("site_a", rows)
    for path in (three.site("site_a").config.state / "replies").rglob("*.reply"):
        path.unlink()
    with pytest.raises(PrivacyError, match="second time"):
        three.train("site_a", rows, step=0.25)


def test_noise_is_forgotten_with_the_last_step_and_never_before_it(tmp_path: Path) -> None:
    three = noisy(tmp_path)
    rows = begun(three)
    for name in NAMES:
        three.train(name, rows[name])
    session = kept(three).folder / "session.json"
    assert len(json.loads(session.read_text())["noise"]) == len("hex:") + 64
    assert session.stat().st_mode & 0o077 == 0
    everybody: Rows = {name: {} for name in NAMES}
    signed = {name: three.step(name, "agree", everybody)[name] for name in NAMES}
    three.step("site_a", "reveal", signed)
    assert json.loads(session.read_text())["noise"] == "hex:"
    with pytest.raises(PrivacyError):
        three.train("site_a", rows["site_a"])


def test_what_leaves_is_the_clipped_update_and_a_share_of_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[np.ndarray] = []

    def seen(words: Any, *masks: Any) -> Any:
        plain.append(words)
        return with_masks(words, *masks)

    monkeypatch.setattr("nognet.secagg.site_side.with_masks", seen)
    three = noisy(tmp_path, noise_multiplier=1.0)
    rows = begun(three)
    for name in NAMES:
        three.train(name, rows[name], step=0.125)  # far longer than the clip norm
    plan = plan_for(three.study)
    assert plan is not None
    share = plan.share
    assert share is not None
    code = NoisedCode(share.step, share.largest, 3, 1)
    total = np.sum(plain, axis=0, dtype=code.word)
    mean = decode_noised(total, code, sites=3).mean
    assert mean.std() == pytest.approx(share.std * 3**0.5, rel=0.02)
    expected = 3 * 0.5 / mean.size**0.5  # three updates of the clip norm, each number alike
    assert mean.mean() == pytest.approx(expected, abs=5 * share.std * (3 / mean.size) ** 0.5)


def test_the_receipt_says_which_noise_left_and_what_it_cost(tmp_path: Path) -> None:
    three = noisy(tmp_path)
    masked = three.train("site_a", begun(three)["site_a"])
    outgoing = of_masked_training(_task(three), masked, three.site("site_a"))
    noise = outgoing.facts.noise
    assert noise is not None
    assert noise["noise_multiplier"] == 2.0
    assert noise["honest_sites"] == 2
    assert noise["std"] == pytest.approx(2.0 * 0.5 / 2**0.5)
    assert 0 < noise["site_epsilon"] < 9.0


def _task(three: Three) -> MaskedTrainTask:
    study = three.study
    weights = pack(initial_weights(study.network, 1), weight_spec(study.network))
    digest = contract_hash(contract(study))
    return MaskedTrainTask(TrainTask(1, study.for_sites(), digest, TOKEN, weights), NONCE, {})


def test_a_sum_that_fewer_sites_would_be_in_than_the_noise_is_made_for_is_refused(
    tmp_path: Path,
) -> None:
    three = Three(
        tmp_path,
        strategy={"name": "fedavg", "weighting": "equal"},
        federation={"minimum_sites": 4, "expected_sites": 4},
        central_privacy={**CENTRAL, "max_epsilon": 30.0},
    )
    with pytest.raises(PrivacyError, match="3 sites begin, 4 to 64 are needed"):
        three.shares(three.keys())


def test_a_session_in_which_dishonest_sites_could_have_two_sums_is_refused(tmp_path: Path) -> None:
    three = noisy(tmp_path)
    begun(three)
    plan, session_state = plan_for(three.study), _state(three)
    assert plan is not None
    more = {**session_state.adverts, **{f"site_{n}": session_state.adverts["site_a"] for n in "de"}}
    with pytest.raises(PrivacyError, match="5 sites began, 3 are needed") as caught:
        check_may_noise(
            three.study,
            plan,
            replace(session_state, adverts=more),
            kept(three),
            three.site("site_a").config,
            Rules(0.5),
        )
    assert caught.value.code == "secure-colluding"


def _state(three: Three) -> Any:
    return from_text((kept(three).folder / "session.json").read_text())


def test_joining_says_what_is_promised_and_refuses_a_plan_beyond_its_own_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    three, beyond = noisy(tmp_path / "a"), noisy(tmp_path / "b", max_epsilon=0.5)
    with caplog.at_level(logging.INFO, logger="nognet.client.masking"):
        check_can_sum(three.study.for_sites(), three.site("site_a").config)
    assert "central privacy: epsilon" in caplog.text
    with pytest.raises(PrivacyBudgetError, match=r"expected at most max_epsilon 0\.5"):
        check_can_sum(beyond.study.for_sites(), beyond.site("site_a").config)
