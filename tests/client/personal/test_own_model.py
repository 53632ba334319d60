"""A site's own part in a run's model: which local weights a round goes on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nognet_client.personal.model import OwnModel

from nognet.config import PrivacyConfig
from nognet.errors import PrivacyError, WireError
from nognet.fit.parts import local_names, part_of, shared_spec
from nognet.fit.weights import Weights, initial_weights
from nognet.wire.flat import flat_length, pack
from tests.builders.federation import make_site, make_study, opened

TOKEN = "ab" * 16


def own_model(folder: Path) -> OwnModel:
    study = make_study(folder, personalisation={"local": "norms+head"})
    return OwnModel(study, *opened(make_site(folder, "site_a")), TOKEN)


def test_a_site_that_missed_rounds_goes_on_with_what_it_has(tmp_path: Path) -> None:
    own = own_model(tmp_path)
    first = initial_weights(own.study.network, own.study.seed)
    trained = {name: tensor + 1 for name, tensor in first.items()}
    local, spec = local_names(own.study), shared_spec(own.study)
    sent = pack(part_of({n: t + 3 for n, t in first.items()}, spec), spec)
    own.keep(trained, None, 2)
    for after, kept in ((0, first), (1, first), (2, trained), (7, trained)):
        found = own.whole_after(sent, after)
        assert list(found) == list(first)
        for name, tensor in found.items():
            expected = kept[name] if name in local else first[name] + 3
            assert torch.equal(tensor, expected)


def test_under_privacy_local_parts_of_open_steps_are_refused(tmp_path: Path) -> None:
    """Whoever keeps them says how they were trained; what doesn't say so was trained without."""
    own = own_model(tmp_path)
    privacy = PrivacyConfig(noise_multiplier=2.0, delta=1e-2)
    private = replace(own, site=own.site.model_copy(update={"privacy": privacy}))
    first = initial_weights(own.study.network, own.study.seed)
    sent = own.shared(first)
    private.keep(first, None, 1, noised=True)
    own.keep(first, None, 2)
    private.whole_after(sent, 1)
    own.whole_after(sent, 2)
    with pytest.raises(PrivacyError, match=r"by an earlier release.*\*\.local") as caught:
        private.whole_after(sent, 2)
    assert caught.value.code == "open-local-parts"
    private.keep(first, None, 2, noised=True)  # the round is trained anew
    private.whole_after(sent, 2)


def test_what_leaves_has_no_place_for_local_parameters(tmp_path: Path) -> None:
    own = own_model(tmp_path)
    first = initial_weights(own.study.network, own.study.seed)
    local = local_names(own.study)
    other = {name: tensor + 9 if name in local else tensor for name, tensor in first.items()}
    assert own.shared(first).tobytes() == own.shared(other).tobytes()
    assert len(own.shared(first)) == flat_length(shared_spec(own.study))


def test_scaffold_corrects_shared_parameters_alone(tmp_path: Path) -> None:
    own = own_model(tmp_path)
    first = initial_weights(own.study.network, own.study.seed)
    sent = own.shared({name: torch.ones_like(tensor) for name, tensor in first.items()})
    correction = own.correction(sent)
    assert correction is not None
    local = local_names(own.study)
    for name, tensor in correction.items():
        assert bool((tensor == (0.0 if name in local else 1.0)).all())
    assert own.correction(None) is None


def spoilt(weights: Weights, names: frozenset[str], value: float) -> Weights:
    return {n: torch.full_like(t, value) if n in names else t for n, t in weights.items()}


@pytest.mark.parametrize(
    ("value", "code"),
    [(float("nan"), "non-finite"), (float("-inf"), "non-finite"), (2e6, "too-large")],
)
@pytest.mark.parametrize("part", ["local", "shared", "personal"])
def test_of_a_round_that_diverged_nothing_is_kept(
    tmp_path: Path, part: str, value: float, code: str
) -> None:
    """Whichever part diverged; the next round goes on with what was there before."""
    wanted = {"local": "norms", "ditto_lambda": 1.0, "cross_site": "local"}
    path = make_site(tmp_path, "site_a")
    path.write_text(path.read_text() + "share_models: true\n")
    study = make_study(tmp_path, personalisation=wanted)
    own = OwnModel(study, *opened(path), TOKEN)
    first = initial_weights(study.network, study.seed)
    own.keep(first, first, 1)
    before = {path.name: path.read_bytes() for path in own.state.folder.iterdir()}
    assert sorted(before) == ["00001.ditto", "00001.local", "00001.trained"]
    local, every = local_names(study), frozenset(first)
    names = {"local": local, "shared": every - local, "personal": frozenset()}[part]
    personal = spoilt(first, every, value) if part == "personal" else first
    with pytest.raises(WireError, match="what stays at the site") as caught:
        own.keep(spoilt(first, names, value), personal, 2)
    assert caught.value.code == code
    assert {path.name: path.read_bytes() for path in own.state.folder.iterdir()} == before
    own.whole_after(own.shared(first), 2)
