from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nognet_client.forecast.outlook import foresee
from nognet_client.forecast.sizes import Messages, Traffic, personal_bytes

from nognet.config import StudyConfig
from nognet.fit.parts import local_spec
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from tests.builders.federation import make_site, make_study, opened, run


def test_traffic_adds_up() -> None:
    assert Traffic(3, 5) + Traffic(10, 20).times(3) == Traffic(33, 65)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategy": "scaffold", "personalisation": {"local": "norms"}},
    ],
)
def test_the_bytes_are_those_of_a_real_run_within_2_percent(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    study, path = make_study(tmp_path, **changes), make_site(tmp_path, "site_a")
    outlook = foresee(study, *opened(path))
    rounds = read_metrics(run(study, [path]).path).rounds
    parts = [entry.sites["site_a"] for entry in rounds]
    assert len(parts) == study.rounds
    trained = [part.train for part in parts if part.train is not None]
    down = [t.bytes_down for t in trained] + [part.evaluate_bytes_down for part in parts]
    up = [t.bytes_up for t in trained] + [part.evaluate_bytes_up for part in parts]
    assert outlook.rounds.down == pytest.approx(sum(d or 0 for d in down), rel=0.02)
    assert outlook.rounds.up == pytest.approx(sum(u or 0 for u in up), rel=0.02)
    assert outlook.training.down == pytest.approx(trained[-1].bytes_down, rel=0.02)
    assert outlook.training.up == pytest.approx(trained[-1].bytes_up, rel=0.02)
    assert outlook.evaluation.up == pytest.approx(parts[-1].evaluate_bytes_up, rel=0.02)
    assert outlook.total.down > outlook.rounds.down + outlook.evaluation.down  # test and joining
    assert outlook.total.up > outlook.rounds.up + outlook.evaluation.up


def test_masked_updates_are_counted_in_their_own_words(tmp_path: Path) -> None:
    limits = {"minimum_sites": 3}
    site = opened(make_site(tmp_path, "site_a"))

    def training(**secure: Any) -> Traffic:
        study = make_study(tmp_path, federation=limits, secure_aggregation=secure)
        return Messages(study, *site, None).training(1)

    plain = Messages(make_study(tmp_path, federation=limits), *site, None)
    small, large = training(bits=20, max_weight=500), training(bits=32, max_weight=500)
    number = plain.weights.size
    assert 4 * number < small.up < 1.05 * 4 * number  # 32-bit words
    assert 8 * number < large.up < 1.05 * 8 * number
    assert 0 < small.down - plain.training(1).down < 20_000


def test_models_of_its_own_take_so_much_on_disk(tmp_path: Path) -> None:
    def size(**personal: Any) -> int:
        return personal_bytes(make_study(tmp_path, rounds=7, personalisation=personal))

    study: StudyConfig = make_study(tmp_path, personalisation={"local": "norms"})
    whole, norms = (4 * flat_length(s) for s in (weight_spec(study.network), local_spec(study)))
    assert size() == 0
    assert size(local="norms") == 7 * norms + whole
    assert size(ditto_lambda=0.1) == 3 * whole + whole
    assert size(cross_site="local") == 3 * whole
