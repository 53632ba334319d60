from __future__ import annotations

from pathlib import Path

import pytest

from nognet.data.ct.image import read_ct
from nognet.data.ct.meta_image import check_meta_image
from nognet.errors import SiteDataError
from tests.builders.ct_files import write_image
from tests.builders.inspect_cases import GRID, hu


@pytest.mark.parametrize("found", [b"-3", b"0", b"300000", b"", b"x"])
def test_a_number_of_dimensions_that_would_end_the_process_is_refused(
    tmp_path: Path, found: bytes
) -> None:
    path = write_image(tmp_path / "ct.mha", hu(), GRID)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = " + found, 1))
    for read in (check_meta_image, read_ct):
        with pytest.raises(SiteDataError) as caught:
            read(path)
        assert caught.value.code == "truncated"


def test_a_sound_image_passes(tmp_path: Path) -> None:
    check_meta_image(write_image(tmp_path / "ct.mha", hu(), GRID))
    check_meta_image(write_image(tmp_path / "ct.nrrd", hu(), GRID))
