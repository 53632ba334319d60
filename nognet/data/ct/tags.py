"""Values of tags, none of them trusted: what can't be used is no value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from nognet.data.ct.dicom_file import PYDICOM_ERRORS

LARGEST_NUMBER = 1e9
"""No tag that geometry or values depend on is larger."""


@lru_cache(maxsize=512)
def tag_of(name: str | int) -> BaseTag:
    """Find the tag of a keyword; a number is the tag itself, where there is no keyword.

    Looking up by tag is twice as fast as by keyword, which counts with a thousand slices.

    Raises:
        ValueError: there is no such tag.
    """
    found = tag_for_keyword(name) if isinstance(name, str) else name
    return Tag(name if found is None else found)


def value_of(data: Dataset, name: str | int) -> Any:  # noqa: ANN401  whatever the tag holds
    """Give the value of a tag; None where it is absent or can't be converted."""
    tag = tag_of(name)
    try:
        return _held(data, tag)
    except (*PYDICOM_ERRORS, OSError):  # OSError: a long value that was left in the file
        return None


def is_present(data: Dataset, name: str) -> bool:
    """Tell whether a tag is there and not empty, also where its value can't be converted."""
    tag = tag_of(name)
    try:
        value = _held(data, tag)
    except (*PYDICOM_ERRORS, OSError):
        return True
    return _holds(value)


def text_of(data: Dataset, name: str) -> str:
    """Give a tag as text; empty where there is none."""
    value = value_of(data, name)
    return "" if value is None else str(value).strip().strip("\x00").strip()


def texts_of(data: Dataset, name: str) -> tuple[str, ...]:
    """Give the values of a tag as text."""
    value = value_of(data, name)
    if value is None or value == "":
        return ()
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return tuple(str(v).strip() for v in values)


def integer_of(data: Dataset, name: str | int) -> int | None:
    """Give a tag as a whole number; None where it is none."""
    value = value_of(data, name)
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError, ArithmeticError):
        return None


def number_of(sources: Sequence[Dataset], name: str) -> float | None:
    """Give a number from the first source that has the tag."""
    found = numbers_of(sources, name, 1)
    return found[0] if found else None


def numbers_of(
    sources: Sequence[Dataset], name: str, count: int, *, above: float | None = None
) -> tuple[float, ...] | None:
    """Give `count` finite numbers from the first source that has the tag; None if it can't."""
    for source in sources:
        try:
            value = source.get(name)
        except (*PYDICOM_ERRORS, OSError):
            return None
        if not _holds(value):
            continue
        try:
            numbers = tuple(float(v) for v in ([value] if count == 1 else value))
        except (TypeError, ValueError, ArithmeticError):
            return None
        finite = all(-LARGEST_NUMBER < number < LARGEST_NUMBER for number in numbers)
        high_enough = above is None or all(number > above for number in numbers)
        return numbers if len(numbers) == count and finite and high_enough else None
    return None


def sequence_of(data: Dataset, name: str) -> list[Dataset]:
    """Give the items of a sequence; none where it is no sequence."""
    value = value_of(data, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [item for item in value if isinstance(item, Dataset)]


def _held(data: Dataset, tag: BaseTag) -> Any:  # noqa: ANN401  whatever the tag holds
    element = data.get(tag)
    return None if element is None else element.value


def _holds(value: object) -> bool:
    if isinstance(value, str):
        return value.strip(" \0") != ""
    return value is not None and not (isinstance(value, Sequence) and len(value) == 0)
