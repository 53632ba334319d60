"""Models are frozen, closed, and have one canonical text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nognet.config import PrivacyConfig, RoiConfig, ServerConfig, SiteConfig, StudyConfig
from nognet.config.base import ConfigModel, resolve_path, resolve_paths

_SERVER = ServerConfig(
    listen="0.0.0.0:9443",
    ca=Path("/secret-place/ca.pem"),
    certificate=Path("/secret-place/server.pem"),
    key=Path("/secret-place/server.key"),
    sites=Path("/secret-place/sites"),
)


def _models(root: type[ConfigModel]) -> set[type[ConfigModel]]:
    """Every configuration model there is, by its class tree."""
    below = {model for child in root.__subclasses__() for model in _models(child)}
    return below | {root}


@pytest.mark.parametrize("model", sorted(_models(ConfigModel), key=lambda m: m.__name__))
def test_every_model_is_frozen_and_admits_no_unknown_key(model: type[ConfigModel]) -> None:
    assert model.model_config["frozen"] is True
    assert model.model_config["extra"] == "forbid"


def test_a_value_can_not_be_changed() -> None:
    roi = RoiConfig()
    with pytest.raises(ValidationError, match="frozen"):
        roi.size_vox = 64  # type: ignore[misc]  # what is tested


def test_equal_configurations_have_equal_digests_whatever_the_order_of_keys() -> None:
    one = StudyConfig.model_validate({"name": "a", "seed": 2, "rounds": 3})
    other = StudyConfig.model_validate({"rounds": 3, "seed": 2, "name": "a"})
    assert one.digest() == other.digest()
    assert one.digest() != StudyConfig(name="a", seed=3, rounds=3).digest()


@given(
    noise=st.floats(0.01, 1000),
    clip=st.floats(1e-6, 1e6),
    delta=st.floats(1e-12, 0.49),
    limit=st.none() | st.floats(1e-3, 100),
)
def test_canonical_json_round_trips(
    noise: float, clip: float, delta: float, limit: float | None
) -> None:
    privacy = PrivacyConfig(noise_multiplier=noise, clip_norm=clip, delta=delta, max_epsilon=limit)
    assert PrivacyConfig.model_validate_json(privacy.canonical_json()) == privacy


def test_what_sites_receive_holds_no_path_of_the_coordinator() -> None:
    study = StudyConfig(name="lungs", runs=Path("/secret-place/runs"), server=_SERVER)
    sent = study.for_sites()
    assert "secret-place" not in sent
    assert json.loads(sent)["server"] is None
    assert study.server is _SERVER  # the study itself is not changed


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"noise_multiplier": 0.0, "delta": 1e-5}, "noise_multiplier"),
        ({"noise_multiplier": 1.0, "delta": 0.0}, "delta"),
        ({"noise_multiplier": 1.0, "delta": 0.5}, "delta"),
        ({"noise_multiplier": float("nan"), "delta": 1e-5}, "noise_multiplier"),
        ({"noise_multiplier": 1.0, "delta": 1e-5, "clip_norm": 0}, "clip_norm"),
        ({"noise_multiplier": 1.0, "delta": 1e-5, "max_epsilon": 0}, "max_epsilon"),
        ({"noise_multiplier": 1.0}, "delta"),
        ({"target_epsilon": 0.0, "delta": 1e-5}, "target_epsilon"),
        ({"noise_multiplier": 1.0, "delta": 1e-5, "admit": "never"}, "admit"),
    ],
)
def test_privacy_out_of_range_is_refused(values: dict[str, float], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PrivacyConfig.model_validate(values)
    assert [error["loc"] for error in caught.value.errors()] == [(place,)]


@pytest.mark.parametrize("size", [31, 40, 112, 0, -16])
def test_a_roi_that_the_network_can_not_halve_four_times_is_refused(size: int) -> None:
    with pytest.raises(ValidationError):
        RoiConfig(size_vox=size)


def test_paths_resolve_from_the_base_and_the_input_is_left_alone(tmp_path: Path) -> None:
    values = {"cache": "c", "state": tmp_path / "s", "seed": 3, "other": "stays"}
    before = dict(values)
    resolved = resolve_paths(tmp_path, values, "cache", "state", "absent")
    assert values == before
    assert resolved == {
        "cache": str(tmp_path / "c"),
        "state": str(tmp_path / "s"),
        "seed": 3,
        "other": "stays",
    }
    assert resolve_path(tmp_path, Path("/x")) == Path("/x")


def test_a_path_of_the_wrong_type_is_left_for_validation_to_report(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        SiteConfig.model_validate(
            SiteConfig.with_paths_from(tmp_path, {"name": "a", "studies": ["x"], "server": "y"})
        )
    assert {error["loc"][0] for error in caught.value.errors()} == {"studies", "server"}


def test_defaults_of_site_and_study_agree_on_the_roi() -> None:
    assert StudyConfig(name="a").roi == SiteConfig(name="a", studies=Path("s.csv")).roi
