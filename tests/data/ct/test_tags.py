from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from nognet.data.ct.header import read_headers
from nognet.data.ct.tags import integer_of, text_of
from tests.builders.ct_files import geometry, write_series

GRID = geometry((8, 6, 2), (1.0, 1.0, 2.0))


def test_tags_without_a_keyword_of_their_own_are_found_by_their_number() -> None:
    data = Dataset()
    data.add_new(0x60020102, "US", 12)
    assert integer_of(data, 0x60020102) == 12
    assert integer_of(data, 0x60000102) is None


def test_a_keyword_that_does_not_exist_is_a_mistake_and_no_absent_tag() -> None:
    with pytest.raises(ValueError, match="PatientIdd"):
        text_of(Dataset(), "PatientIdd")


@pytest.mark.parametrize(("position", "is_overlay"), [(12, True), (0, False), (None, False)])
def test_an_overlay_in_the_bits_above_the_value_is_seen(
    tmp_path: Path, position: int | None, is_overlay: bool
) -> None:
    write_series(tmp_path, np.zeros(GRID.size[::-1]), GRID)
    file = next(path for path in sorted(tmp_path.iterdir()) if path.is_file())
    data = pydicom.dcmread(file)
    data.BitsStored, data.HighBit = 12, 11
    if position is not None:
        data.add_new(0x60000102, "US", position)
    data.save_as(file)
    assert read_headers(file)[0].pixels.overlay is is_overlay
