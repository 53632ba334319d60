"""Which studies may have the sites make the noise of a secure sum."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nognet.config import StudyConfig
from nognet.secagg.session import Rules

CENTRAL = {"noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-3, "max_epsilon": 30.0}


def study(**changes: Any) -> StudyConfig:
    federation = {"minimum_sites": 8, "expected_sites": 10, **changes.pop("federation", {})}
    central = {**CENTRAL, **changes.pop("central", {})}
    values = {
        "name": "s",
        "secure_aggregation": {},
        "strategy": {"name": "fedavg", "weighting": "equal"},
        "federation": federation,
        "central_privacy": {key: value for key, value in central.items() if value is not None},
    }
    return StudyConfig.model_validate({**values, **changes})


def test_both_together_have_one_curious_site_by_default_and_survive_being_sent() -> None:
    made = study()
    assert made.central_privacy is not None
    assert made.central_privacy.colluders == 1
    assert StudyConfig.model_validate_json(made.for_sites()) == made.model_copy(
        update={"runs": StudyConfig.model_validate_json(made.for_sites()).runs}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"central": {"clipping": "adaptive"}}, "nobody may see how many updates were clipped"),
        (
            {
                "central": {"weights": {"name": "bounded", "max_weight": 5}},
                "strategy": {"name": "fedavg", "weighting": "pairs"},
            },
            "made for an update that counts once",
        ),
        (
            {"central": {"noise_multiplier": None, "target_epsilon": 4.0}},
            "all must make the same; set noise_multiplier",
        ),
        ({"central": {"max_epsilon": None}}, "must know where to stop"),
        ({"central": {"colluding_sites": 8}}, "no noise would count"),
        (
            {"secure_aggregation": {"threshold": 0.5}, "federation": {"minimum_sites": 5}},
            "where 9 sites begin, 5 stay and 1 work with the coordinator",
        ),
        ({"secure_aggregation": {"bits": 24}}, "secure_aggregation.bits says how sums without"),
        ({"secure_aggregation": {"clip_norm": 3.0}}, "secure_aggregation.clip_norm says"),
        ({"strategy": "krum"}, "needs each by itself"),
        ({"federation": {"minimum_sites": 2}}, "minimum_sites is 2"),
        ({"secure_aggregation": None, "central": {"colluding_sites": 1}}, "leave it out"),
    ],
)
def test_what_would_break_the_promise_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        study(**changes)
    assert said in str(caught.value)


@given(
    threshold=st.floats(0.5, 0.99),
    minimum=st.integers(3, 20),
    more=st.integers(0, 20),
    bad=st.integers(0, 6),
)
def test_a_study_is_refused_where_its_sites_would_refuse(
    threshold: float, minimum: int, more: int, bad: int
) -> None:
    rules = Rules(threshold, minimum)
    fine = bad < minimum and all(rules.bears(bad, n) for n in range(minimum, minimum + more + 1))
    with nullcontext() if fine else pytest.raises(ValidationError):
        study(
            secure_aggregation={"threshold": threshold},
            federation={"minimum_sites": minimum, "expected_sites": minimum + more},
            central={"colluding_sites": bad},
        )
