"""What a site keeps of a run: by round, never half, never of another network."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from nognet_client.personal.state import PersonalState

from nognet.errors import WireError
from nognet.fit.weights import TensorSpec, Weights

SPEC = (TensorSpec("b", (2,)), TensorSpec("a", (1, 3)))
TOKEN = "ab" * 16


def weights(value: float) -> Weights:
    return {item.name: torch.full(item.shape, float(value)) for item in SPEC}


def value_of(found: Weights | None) -> float | None:
    return None if found is None else float(found["b"][0])


def test_a_round_begins_with_what_was_there_before_it(tmp_path: Path) -> None:
    state = PersonalState(tmp_path, TOKEN)
    assert state.latest("local", SPEC) is None
    for number in (1, 2, 5):
        state.keep("local", number, weights(number))
    found = [value_of(state.latest("local", SPEC, upto=upto)) for upto in (0, 1, 2, 4, 5, 9)]
    assert found == [None, 1.0, 2.0, 2.0, 5.0, 5.0]
    assert value_of(state.latest("local", SPEC)) == 5.0
    assert list(state.latest("local", SPEC) or {}) == ["b", "a"]


def test_a_round_played_again_forgets_those_after_it(tmp_path: Path) -> None:
    state = PersonalState(tmp_path, TOKEN)
    for number in (1, 2, 3, 2):
        state.keep("local", number, weights(number))
    assert sorted(path.name for path in state.folder.iterdir()) == ["00001.local", "00002.local"]


def test_of_whole_models_only_the_last_are_kept_and_kinds_and_runs_dont_mix(tmp_path: Path) -> None:
    state, other = (PersonalState(tmp_path, token) for token in (TOKEN, "cd" * 16))
    for number in range(1, 7):
        state.keep("ditto", number, weights(number))
        state.keep("local", number, weights(-number))
    names = {path.name for path in state.folder.glob("*.ditto")}
    assert names == {f"0000{number}.ditto" for number in (4, 5, 6)}
    assert value_of(state.latest("local", SPEC, upto=1)) == -1.0
    assert value_of(state.latest("ditto", SPEC)) == 6.0
    assert other.latest("ditto", SPEC) is None
    assert all(path.stat().st_mode & 0o077 == 0 for path in state.folder.iterdir())


@pytest.mark.parametrize("fault", ["cut", "renamed", "nan", "foreign", "shape"])
def test_what_is_not_what_was_kept_is_refused(tmp_path: Path, fault: str) -> None:
    state = PersonalState(tmp_path, TOKEN)
    spec = SPEC
    state.keep("local", 3, weights(float("nan") if fault == "nan" else 1.0))
    path = state.folder / "00003.local"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif fault == "renamed":
        path.rename(state.folder / "00004.local")
    elif fault == "foreign":
        safetensors.torch.save_file(weights(1.0), path)
    elif fault == "shape":
        spec = (SPEC[0], TensorSpec("a", (3,)))
    with pytest.raises(WireError):
        state.latest("local", spec)
