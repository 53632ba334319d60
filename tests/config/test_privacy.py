"""`privacy:` gives the noise in exactly one way."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from nognet.config import PrivacyConfig, load_study
from nognet.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "found"),
    [({}, "neither"), ({"noise_multiplier": 1.0, "target_epsilon": 3.0}, "both")],
)
def test_noise_and_target_exclude_each_other_and_one_is_needed(
    values: dict[str, float], found: str
) -> None:
    with pytest.raises(ValidationError, match=f"found {found} of noise_multiplier and target"):
        PrivacyConfig.model_validate({"delta": 1e-5, **values})


def test_a_target_alone_is_enough() -> None:
    privacy = PrivacyConfig.model_validate({"delta": 1e-5, "target_epsilon": 3})
    assert privacy.noise_multiplier is None
    assert PrivacyConfig.model_validate_json(privacy.canonical_json()) == privacy


def test_the_fault_is_told_with_its_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: lungs\nprivacy: {delta: 0.001}\n")
    with pytest.raises(ConfigError, match=r"privacy: found neither of noise_multiplier"):
        load_study(path)
