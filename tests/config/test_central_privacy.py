"""What central privacy asks of the rest of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from nognet.config import STRATEGY_NAMES, StudyConfig, load_study
from nognet.errors import ConfigError

CENTRAL = {"noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-3}
OF_THE_MEAN = {"fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"}


def study(**changes: Any) -> StudyConfig:
    values = {
        "name": "a",
        "strategy": {"name": "fedavg", "weighting": "equal"},
        "federation": {"minimum_sites": 11, "expected_sites": 12},
        "central_privacy": CENTRAL,
    }
    return StudyConfig.model_validate({**values, **changes})


def fault(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        study(**changes)
    return str(caught.value)


def test_names_stand_for_clipping_and_weights_with_their_defaults() -> None:
    privacy = study(central_privacy={**CENTRAL, "clipping": "adaptive"}).central_privacy
    assert privacy is not None
    assert privacy.clipping.name == "adaptive"
    assert privacy.weights.name == "uniform"
    assert (privacy.unit, privacy.max_weight) == ("site", 1)


def test_a_study_survives_being_sent() -> None:
    sent = study(
        strategy={"name": "fedadam", "weighting": "pairs"},
        central_privacy={
            **CENTRAL,
            "weights": {"name": "bounded", "max_weight": 40},
            "clipping": {"name": "adaptive", "count_share": 0.2},
        },
    )
    assert StudyConfig.model_validate_json(sent.for_sites()).central_privacy == sent.central_privacy


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_strategies_that_look_at_single_sites_are_refused(name: str) -> None:
    strategy = {"name": name, "weighting": "equal"} if name in OF_THE_MEAN else {"name": name}
    if name in OF_THE_MEAN:
        assert study(strategy=strategy).central_privacy is not None
    else:
        assert f"strategy {name} needs each by itself" in fault(strategy=strategy)


def test_a_refused_study_is_a_fault_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    values = {"name": "a", "federation": {"expected_sites": 3}, "central_privacy": CENTRAL}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="weighting is pairs; expected uniform with equal"):
        load_study(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": {"name": "fedavg"}}, "weighting is pairs; expected uniform with equal"),
        (
            {"central_privacy": {**CENTRAL, "weights": {"name": "bounded", "max_weight": 5}}},
            "weights is bounded, strategy.weighting is equal",
        ),
        ({"federation": {"minimum_sites": 11}}, "set federation.expected_sites"),
        ({"central_privacy": {**CENTRAL, "delta": 1 / 24}}, "below 1 / (2 x 12) = 0.0417"),
        ({"personalisation": {"local": "head", "cross_site": "local"}}, "cross_site"),
        (
            {"central_privacy": {**CENTRAL, "target_epsilon": 2.0}},
            "exactly one of noise_multiplier and target_epsilon",
        ),
        ({"central_privacy": {"clip_norm": 1.0, "delta": 1e-3}}, "exactly one"),
        ({"central_privacy": {**CENTRAL, "clip_norm": 0.0}}, "greater than 0"),
        ({"central_privacy": {**CENTRAL, "unit": "patient"}}, "'site'"),
        ({"central_privacy": {**CENTRAL, "weights": {"name": "bounded"}}}, "max_weight"),
    ],
)
def test_what_would_break_the_promise_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in fault(**changes)
