"""How much epsilon a site accepts, over all rounds and runs of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from nognet_client.consent import door
from nognet_client.consent.objections import about_study
from nognet_client.consent.words import consent_words

from nognet.errors import ConsentError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from tests.builders.consent import (
    NOON,
    PRIVACY,
    codes,
    request,
    site_with,
)
from tests.builders.federation import make_study


def test_epsilon_is_that_of_all_rounds_together(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=6, privacy=PRIVACY)
    steps = NoisedSteps(1.0, 2 / 3, 12)  # 6 rounds of 2 steps, 2 of the site's 3 patients a step
    exact = PrivacyHistory((steps,)).epsilon(1e-3)
    for factor, expected in ((1.001, []), (0.999, ["consent-max-epsilon"])):
        site = site_with(tmp_path / str(factor), max_epsilon=exact * factor)
        assert codes(site, study) == expected


def test_epsilon_adds_up_over_the_runs_of_a_study(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1, privacy=PRIVACY)
    two = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(1e-3)
    site = site_with(tmp_path, max_epsilon=two * 1.001)
    for token in ("1", "2"):
        door.begin(request(site, study, run_token=token * 8), "rounds", token)
    with pytest.raises(ConsentError, match="with this round") as found:
        door.begin(request(site, study, run_token="3" * 8), "rounds", "3")
    assert found.value.code == "consent-max-epsilon"


@pytest.mark.parametrize("own_delta", [None, 1e-4])
@pytest.mark.parametrize("factor", [1.0, 5.0, 100.0])  # 0.1 at most; three patients allow 1 / 6
def test_no_delta_of_a_study_buys_more_rounds(
    tmp_path: Path, own_delta: float | None, factor: float
) -> None:
    floor = 1e-3 if own_delta is None else own_delta
    study = make_study(tmp_path, rounds=1, privacy={**PRIVACY, "delta": floor * factor})
    two = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(floor)
    own = {} if own_delta is None else {"max_delta": own_delta}
    site = site_with(tmp_path, max_epsilon=two * 1.001, **own)
    for token in ("1", "2"):
        door.begin(request(site, study, run_token=token * 8), "rounds", token)
    with pytest.raises(ConsentError, match=f"at delta {floor:g} with this round"):
        door.begin(request(site, study, run_token="3" * 8), "rounds", "3")
    assert codes(site, make_study(tmp_path, rounds=2, privacy=study.privacy)) == []
    three = request(site, make_study(tmp_path, rounds=3, privacy=study.privacy))
    (found,) = about_study(three, NOON)
    assert found.code == "consent-max-epsilon"
    assert f"at delta {floor:g}, all rounds together" in found.words


def test_a_studys_smaller_delta_is_the_one_that_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path, privacy={**PRIVACY, "delta": 1e-6})
    limit = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(1e-3) * 1.001
    assert codes(site_with(tmp_path, max_epsilon=limit), study) == ["consent-max-epsilon"]


def test_a_target_at_a_delta_of_the_studys_choice_is_no_epsilon_of_the_sites(
    tmp_path: Path,
) -> None:
    private = {"target_epsilon": 2.0, "delta": 0.15}
    site = site_with(tmp_path, max_epsilon=2.1)
    assert codes(site, make_study(tmp_path, privacy=private)) == ["consent-max-epsilon"]
    assert codes(site, make_study(tmp_path, privacy={**private, "delta": 1e-3})) == []


def test_an_epsilon_that_is_accepted_is_told_with_its_delta(tmp_path: Path) -> None:
    assert "max_delta 0.001" in consent_words(site_with(tmp_path / "a", max_epsilon=4).config)
    assert "max_delta" not in consent_words(site_with(tmp_path / "b", max_rounds=4).config)
