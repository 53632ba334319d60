"""Cases as drawn, kept in a run folder so that its report can be built again without the images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from nognet.errors import WireError
from nognet.files import write_json_atomic
from nognet.report.cases import Case, case_png

CASES_FILE_NAME = "cases.json"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _is_png(text: str) -> str:
    if not base64.b64decode(text, validate=True).startswith(_PNG_SIGNATURE):
        raise ValueError("no PNG")
    return text


class DrawnCase(BaseModel):
    """A case's panels as a PNG in base64, with its title and figures."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: str
    figures: dict[str, float | str]
    png_base64: Annotated[str, AfterValidator(_is_png)]


_CASES = TypeAdapter(tuple[DrawnCase, ...])


def draw_cases(cases: Sequence[Case]) -> tuple[DrawnCase, ...]:
    """Draw each case's panels."""
    return tuple(
        DrawnCase(title=case.title, figures=dict(case.figures), png_base64=case_png(case))
        for case in cases
    )


def write_drawn(run_folder: Path, cases: Sequence[DrawnCase]) -> None:
    """Keep drawn cases in the run folder.

    Raises:
        OSError: the folder can't be written.
    """
    write_json_atomic(run_folder / CASES_FILE_NAME, [case.model_dump() for case in cases])


def read_drawn(run_folder: Path) -> tuple[DrawnCase, ...]:
    """Read the run folder's drawn cases; none where none were drawn.

    Raises:
        WireError: the file is damaged.
    """
    path = run_folder / CASES_FILE_NAME
    if not path.exists():
        return ()
    try:
        return _CASES.validate_json(path.read_bytes())
    except ValidationError as err:
        raise WireError(
            f"{path}: {err.error_count()} entries aren't drawn cases; delete the file and build "
            "the report again",
            code="cases-file",
        ) from err
