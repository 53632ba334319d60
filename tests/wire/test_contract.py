from __future__ import annotations

import json
from pathlib import Path

import pytest

from nognet.config import RoiConfig
from nognet.errors import ContractError
from nognet.wire.contract import (
    check_same,
    contract,
    contract_hash,
    contract_json,
    describe_differences,
    differing_items,
    item_code,
    parse_contract,
)
from tests.builders.federation import make_study


def test_equal_studies_have_equal_contracts(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert contract_hash(contract(study)) == contract_hash(contract(study, roi=study.roi))


def test_a_contract_does_not_depend_on_who_takes_part_or_how_long(tmp_path: Path) -> None:
    longer = make_study(tmp_path, rounds=9, name="other", federation={"minimum_sites": 3})
    assert contract(longer) == contract(make_study(tmp_path))


@pytest.mark.parametrize(
    ("roi", "item"),
    [
        (RoiConfig(size_vox=48), "roi.size_vox"),
        (RoiConfig(size_vox=32, hu_window=(-1000.0, 400.0)), "roi.hu_window"),
    ],
)
def test_another_roi_is_named(tmp_path: Path, roi: RoiConfig, item: str) -> None:
    study = make_study(tmp_path)
    mine, theirs = contract(study), contract(study, roi=roi)
    assert differing_items(mine, theirs) == (item,)
    with pytest.raises(ContractError, match=item) as caught:
        check_same(mine, theirs)
    assert caught.value.code == item_code(item)
    assert contract_hash(mine) != contract_hash(theirs)


def test_another_network_differs_in_its_parameters(tmp_path: Path) -> None:
    wide = make_study(tmp_path, network={"width": 8})
    items = differing_items(contract(make_study(tmp_path)), contract(wide))
    assert items
    assert all(item.startswith("parameter ") for item in items)


def test_what_a_reply_carries_is_part_of_the_contract(tmp_path: Path) -> None:
    plain = contract(make_study(tmp_path, strategy="fedyogi"))
    assert plain == contract(make_study(tmp_path))
    for strategy in ("scaffold", "qfedavg"):
        asked = contract(make_study(tmp_path, strategy=strategy))
        assert differing_items(plain, asked) == ("training reply",)


def test_a_contract_survives_json() -> None:
    items = {"axes": "z, y, x", "mask": "0 1"}
    assert parse_contract(contract_json(items)) == items


@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"a": 1}', json.dumps({"a": {"b": "c"}}), "[" * 100_000]
)
def test_a_received_contract_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        parse_contract(text)


def test_foreign_text_is_shown_short_and_printable() -> None:
    shown = describe_differences({"axes": "z, y, x"}, {"axes": "\x1b[31m" + "x" * 500})
    assert "\x1b" not in shown
    assert len(shown) < 200
    assert "study" in shown


def test_more_than_five_differences_are_counted() -> None:
    study = {f"item {i}": "a" for i in range(9)}
    site = {f"item {i}": "b" for i in range(9)}
    assert describe_differences(study, site).endswith("and 4 more items")
