"""Which studies can sum securely."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nognet.config import STRATEGY_NAMES, StudyConfig
from nognet.config.secure_aggregation import SitePeersConfig

OF_THE_MEAN = {"fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"}


def study(**changes: Any) -> StudyConfig:
    federation = {"minimum_sites": 11, **changes.pop("federation", {})}
    values = {"name": "s", "secure_aggregation": {}, "federation": federation}
    return StudyConfig.model_validate({**values, **changes})


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_strategies_of_the_mean_sum_securely_and_no_others(name: str) -> None:
    if name in OF_THE_MEAN:
        assert study(strategy=name).secure_aggregation is not None
    else:
        with pytest.raises(ValidationError, match=f"strategy {name} looks at each site's update"):
            study(strategy=name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"federation": {"minimum_sites": 2}}, "minimum_sites is 2"),
        ({"federation": {"stragglers": "next_round"}}, "masked for one round"),
        ({"personalisation": {"cross_site": "local"}}, "cross_site: none"),
    ],
)
def test_what_secure_sums_cant_go_with_is_refused_with_the_reason(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        study(**changes)


@pytest.mark.parametrize("section", [{"threshold": 0.49}, {"threshold": 1.0}, {"bits": 33}])
def test_values_that_would_not_hide_or_not_fit_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        study(secure_aggregation=section)


def test_a_sites_delta_is_of_its_epsilon() -> None:
    with pytest.raises(ValidationError, match="add max_site_epsilon, or leave max_site_delta out"):
        SitePeersConfig(trust_coordinator=True, max_site_delta=1e-4)
    peers = SitePeersConfig(trust_coordinator=True, max_site_epsilon=20)
    assert peers.max_site_delta == 1e-3
    assert SitePeersConfig.model_validate_json(peers.canonical_json()) == peers
