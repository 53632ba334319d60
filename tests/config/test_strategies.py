"""Each strategy by its name, with its ranges, and what it needs of the rest of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from nognet.config import (
    STRATEGY_NAMES,
    FedTrimmedAvgConfig,
    MultiKrumConfig,
    StudyConfig,
    load_study,
)
from nognet.errors import ConfigError

ENOUGH = {"minimum_sites": 7}
PRIVACY = {"noise_multiplier": 1.0, "delta": 1e-3}


def study(strategy: Any, **more: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {"name": "a", "strategy": strategy, "federation": ENOUGH, **more}
    )


def fault(tmp_path: Path, values: dict[str, Any]) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "a", **values}))
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    return str(caught.value)


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_each_strategy_has_defaults_and_survives_being_sent(name: str) -> None:
    one = study(name)
    assert one.strategy.name == name
    assert StudyConfig.model_validate_json(one.for_sites()).strategy == one.strategy


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fedprox", {"proximal_mu": -0.1}),
        ("fedavgm", {"server_momentum": 1.0}),
        ("fedavgm", {"server_learning_rate": 0.0}),
        ("fedadam", {"beta_2": 1.0}),
        ("fedyogi", {"tau": 0.0}),
        ("fedadagrad", {"beta_1": -0.1}),
        ("fedtrimmedavg", {"beta": 0.5}),
        ("fedtrimmedavg", {"beta": 0.0}),
        ("krum", {"malicious_sites": -1}),
        ("multikrum", {"sites_to_select": 0}),
        ("bulyan", {"malicious_sites": 1.5}),
        ("qfedavg", {"q": -1.0}),
        ("scaffold", {"server_learning_rate": 0.0}),
        ("fedavg", {"weighting": "doctors"}),
        ("krum", {"weighting": "pairs"}),
    ],
)
def test_a_parameter_out_of_range_or_of_another_strategy_is_refused(
    name: str, values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        study({"name": name, **values})


@pytest.mark.parametrize(
    ("strategy", "needed"),
    [
        ({"name": "fedavg"}, 1),
        ({"name": "fedmedian"}, 3),
        ({"name": "fedtrimmedavg", "beta": 0.2}, 5),
        ({"name": "fedtrimmedavg", "beta": 0.3}, 4),
        ({"name": "fedtrimmedavg", "beta": 0.49}, 3),
        ({"name": "krum", "malicious_sites": 1}, 5),
        ({"name": "krum", "malicious_sites": 2}, 7),
        ({"name": "krum", "malicious_sites": 0}, 3),
        ({"name": "multikrum", "malicious_sites": 1}, 5),
        ({"name": "multikrum", "malicious_sites": 1, "sites_to_select": 4}, 7),
        ({"name": "bulyan", "malicious_sites": 1}, 7),
        ({"name": "qfedavg"}, 1),
        ({"name": "scaffold"}, 1),
    ],
)
def test_the_replies_that_a_rule_needs_are_held_against_the_minimum_of_sites(
    tmp_path: Path, strategy: dict[str, Any], needed: int
) -> None:
    assert study(strategy).strategy.sites_needed == needed
    study(strategy, federation={"minimum_sites": needed})
    if needed > 1:
        values = {"strategy": strategy, "federation": {"minimum_sites": needed - 1}}
        message = fault(tmp_path, values)
        assert f"strategy {strategy['name']}" in message
        assert f"needs {needed} replies" in message
        assert f"minimum_sites is {needed - 1}" in message


def test_the_share_that_is_trimmed_is_of_whole_sites() -> None:
    cuts = {n: FedTrimmedAvgConfig(name="fedtrimmedavg", beta=0.29).cut(n) for n in (3, 4, 7, 100)}
    assert cuts == {3: 0, 4: 1, 7: 2, 100: 29}  # int(0.29 * 100) is 28


def test_multikrum_selects_all_but_the_bad_and_two() -> None:
    assert MultiKrumConfig(name="multikrum", malicious_sites=2).selected(9) == 5
    assert MultiKrumConfig(name="multikrum", sites_to_select=2).selected(9) == 2


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_privacy_goes_with_what_sends_no_more_than_an_update(name: str) -> None:
    if name in {"qfedavg", "scaffold"}:
        with pytest.raises(ValidationError, match="privacy doesn't cover"):
            study(name, privacy=PRIVACY)
    else:
        assert study(name, privacy=PRIVACY).privacy is not None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fedavgg", "fedavg"),
        ("FedYogi", "fedyogi"),
        ("trimmedavg", "fedtrimmedavg"),
        ("q-fedavg", "qfedavg"),
        ("multi_krum", "multikrum"),
        ("scafold", "scaffold"),
        ("bulian", "bulyan"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_right_one(
    tmp_path: Path, written: str, meant: str
) -> None:
    message = fault(tmp_path, {"strategy": written})
    assert f"strategy: unknown strategy '{written}'; did you mean '{meant}'?" in message


def test_a_name_that_resembles_none_is_told_all(tmp_path: Path) -> None:
    message = fault(tmp_path, {"strategy": "zzz"})
    assert "did you mean" not in message
    assert all(name in message for name in STRATEGY_NAMES)
