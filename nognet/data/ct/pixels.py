"""From stored words to Hounsfield units: bits, sign, padding, slope and intercept.

Padding is what a scanner writes outside its field of view. It is found by its declared value, or
by lying below -1024 HU, or by lying above every HU because its sign was lost: -2000 written as
63536. Nothing of it may pass for tissue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nognet.data.ct.frames import Words
from nognet.data.ct.header import SliceHeader
from nognet.data.findings import Finding
from nognet.errors import SiteDataError

LOWEST_HU = -1024
HIGHEST_HU = 32_767
"""The widest scale of any scanner ends at 30 710 HU."""
PLAUSIBLE_PADDING_HU = -900.0
"""A declared padding value above this, and below HIGHEST_HU, could be tissue and is left alone."""
TWELVE_BIT_HU = 3071
"""Where the usual scale of 12 bits ends."""

Values = NDArray[np.int16] | NDArray[np.float32]


@dataclass(frozen=True)
class Altered:
    """How many voxels were not taken as stored, by the reason.

    Attributes:
        below: Padding below -1024 HU, set to -1024.
        wrong_sign: Padding that lost its sign, set to -1024.
        signed_tissue: Values that are signed though the header says unsigned, read as signed.
        wide: Values that need more bits than BitsStored says, read whole.
    """

    below: int = 0
    wrong_sign: int = 0
    signed_tissue: int = 0
    wide: int = 0


def whole_rescale(header: SliceHeader) -> bool:
    """Tell whether HU of a slice are whole numbers for certain."""
    slope, intercept = header.rescale or (1.0, 0.0)
    return slope.is_integer() and intercept.is_integer()


def to_hounsfield(words: Words, header: SliceHeader, out: Values) -> Altered:
    """Write the HU of one slice into `out`, padding set to -1024.

    Args:
        words: Stored words ``(H, W)`` with all their bits.
        header: The slice's header.
        out: ``(H, W)`` int16 (where `whole_rescale` holds) or float32.

    Raises:
        SiteDataError: values are too large for HU.
    """
    slope, intercept = header.rescale or (1.0, 0.0)
    allocated, stored, _ = header.pixels.bits
    values, wide, lost = _values(words, header)
    low, high = int(values.min()), int(values.max())
    shift = int(intercept) if slope == 1 and intercept.is_integer() else None
    plain = (
        shift is not None
        and allocated == 16
        and out.dtype == np.int16
        and low + shift >= -32_768
        and high + shift <= HIGHEST_HU
        and (header.pixels.signed or high < 0x8000)
    )
    declared = _declared_padding(words, values, header)
    told = 0
    if declared is not None:
        lost = None if lost is None else lost & ~declared
        told = int(np.count_nonzero(declared)) if _declared_without_sign(header) else 0
    if plain and shift is not None:
        # the sum fits 16 bits, so adding modulo 2**16 gives it, whatever the sign of the words
        step = np.array(shift & 0xFFFF, dtype=np.uint16).view(np.int16)
        np.add(values.astype(np.int16, copy=False), step, out=out, casting="unsafe")
        if declared is not None:
            np.copyto(out, LOWEST_HU, where=declared)
        below = _clip_below(out) if low + shift < LOWEST_HU else 0
        return _altered(below, out, lost, Altered(wrong_sign=told, wide=wide))
    hu = values * np.float64(slope) + intercept
    if declared is not None:
        np.copyto(hu, LOWEST_HU, where=declared)
    if not header.pixels.signed and stored == 16:
        signed = hu - 65_536.0 * slope
        altered = _turn_signs(hu, signed, (values >= 0x8000) & (hu > LOWEST_HU))
    else:
        altered = Altered()
    _check_highest(float(hu.max()), header.path.name)
    out[...] = np.maximum(hu, -32_768)
    below = _clip_below(out) if float(hu.min()) < LOWEST_HU else 0
    altered = replace(altered, wrong_sign=altered.wrong_sign + told, wide=wide)
    return _altered(below, out, lost, altered)


def clip_image(values: NDArray[np.float64], name: str) -> Altered:
    """Set padding in values that claim to be HU to -1024, in place.

    Raises:
        SiteDataError: values are too large for HU.
    """
    altered = _turn_signs(values, values - 65_536.0, (values > HIGHEST_HU) & (values < 65_536))
    _check_highest(float(values.max()), name)
    return Altered(_clip_below(values), altered.wrong_sign, altered.signed_tissue)


def padding_findings(altered: Iterable[Altered]) -> list[Finding]:
    """Say what was altered in all slices together."""
    slices = list(altered)
    below, wrong_sign, tissue, wide = (
        sum(getattr(one, name) for one in slices)
        for name in ("below", "wrong_sign", "signed_tissue", "wide")
    )
    messages = [
        (below, "padding", "voxels below -1024 HU (padding) were set to -1024"),
        (wrong_sign, "unsigned-padding",
         "voxels of padding stored with the wrong sign were set to -1024"),
        (tissue, "unsigned-padding",
         "voxels are stored with a sign though the header says unsigned; read as signed"),
        (wide, "bad-tags", "values need more bits than BitsStored says; read whole"),
    ]  # fmt: skip
    return [
        Finding(code, "warning", f"{count} {words}") for count, code, words in messages if count
    ]


def _altered(below: int, hu: Values, lost: NDArray[np.bool_] | None, others: Altered) -> Altered:
    """Part voxels that were read with the sign they had lost into padding and tissue."""
    if lost is None:
        return replace(others, below=below)
    n_padding = min(below, int(np.count_nonzero(hu[lost] == LOWEST_HU)))
    return replace(
        others,
        below=below - n_padding,
        wrong_sign=others.wrong_sign + n_padding,
        signed_tissue=others.signed_tissue + int(np.count_nonzero(lost)) - n_padding,
    )


def _values(
    words: Words, header: SliceHeader
) -> tuple[NDArray[np.integer], int, NDArray[np.bool_] | None]:
    """Take the value's own bits, with their sign.

    Returns:
        The values, how many need more bits than BitsStored, and which lost their sign: all bits
        above the value's own are set, as in a negative number, though the header says unsigned.
    """
    allocated, stored, _ = header.pixels.bits
    signed_kind = np.int16 if words.dtype.itemsize == 2 else np.int32
    whole: NDArray[np.integer] = words.view(signed_kind) if header.pixels.signed else words
    if stored == allocated:
        return whole, 0, None
    mask = (1 << stored) - 1
    own: NDArray[np.integer] = (words & np.array(mask, words.dtype)).view(signed_kind)
    if header.pixels.signed:
        own = own - ((own >> (stored - 1)) << stored)
    strange = own != whole
    if not strange.any() or header.pixels.overlay:
        return own, 0, None
    negative = words.view(signed_kind)
    lost: NDArray[np.bool_] | None = None
    if not header.pixels.signed:
        lost = (words >> np.array(stored, words.dtype)) == (1 << (allocated - stored)) - 1
        own, strange = np.where(lost, negative, own), strange & ~lost
        lost = lost if lost.any() else None
        if not strange.any():
            return own, 0, lost
    # bits above the value's own hold something: an undeclared overlay, or the value is wider
    slope, intercept = header.rescale or (1.0, 0.0)
    alone = negative[strange]
    if (
        (alone == alone[0]).all()
        and alone[0] * slope + intercept < LOWEST_HU
        and (len(alone) < words.size)
    ):
        return np.where(strange, negative, own), 0, lost  # no overlay leaves one value: padding
    found = whole[strange] * np.float64(slope) + intercept
    wider = np.zeros_like(strange)
    wider[strange] = (found >= LOWEST_HU) & (found <= TWELVE_BIT_HU)
    return np.where(wider, whole, own), int(wider.sum()), lost


def _declared_without_sign(header: SliceHeader) -> bool:
    """Tell whether the declared padding is a negative number that is stored as an unsigned one."""
    if header.pixels.padding is None or header.pixels.signed:
        return False
    slope, intercept = header.rescale or (1.0, 0.0)
    value = header.pixels.padding[0]
    wrapped = value >= 1 << (header.pixels.bits[0] - 1)
    return value < 0 or (wrapped and value * slope + intercept > HIGHEST_HU)


def _declared_padding(
    words: Words, values: NDArray[np.integer], header: SliceHeader
) -> NDArray[np.bool_] | None:
    """Find voxels of the declared padding by their bits, for its VR may be the wrong one."""
    if header.pixels.padding is None:
        return None
    slope, intercept = header.rescale or (1.0, 0.0)
    allocated, stored, _ = header.pixels.bits
    found: NDArray[np.bool_] | None = None
    size, half = 1 << allocated, 1 << (stored - 1)
    bounds = sorted(_as_stored(value, header) for value in header.pixels.padding)
    if bounds[0] != bounds[1]:
        if _may_be_padding(bounds[1] * slope + intercept):
            found = (values >= bounds[0]) & (values <= bounds[1])
        return found
    value = header.pixels.padding[0]
    signed = (value + (size >> 1)) % size - (size >> 1)
    fits = -half <= signed < 2 * half
    hu = (bounds[0] if fits else signed) * slope + intercept
    if _may_be_padding(hu) or not fits:
        found = words == np.array(value % size, dtype=words.dtype)
    return found


def _as_stored(value: int, header: SliceHeader) -> int:
    """Read the bits of a declared value as those of a stored one are read."""
    size = 1 << header.pixels.bits[0]
    value %= size
    return value - size if header.pixels.signed and value >= size >> 1 else value


def _may_be_padding(hu: float) -> bool:
    return hu <= PLAUSIBLE_PADDING_HU or hu > HIGHEST_HU


def _turn_signs(
    hu: NDArray[np.float64], signed: NDArray[np.float64], candidates: NDArray[np.bool_]
) -> Altered:
    """Read unsigned values that can't be HU as signed ones, in place; below -1024 is padding."""
    padding = candidates & (signed < LOWEST_HU)
    tissue = candidates & ~padding & (hu > HIGHEST_HU)
    hu[padding] = LOWEST_HU
    hu[tissue] = signed[tissue]
    return Altered(wrong_sign=int(padding.sum()), signed_tissue=int(tissue.sum()))


def _check_highest(highest: float, name: str) -> None:
    if not highest <= HIGHEST_HU:
        raise SiteDataError(
            f"{name}: values up to {highest:g} are no Hounsfield units", code="not-hounsfield"
        )


def _clip_below(values: NDArray[np.int16] | NDArray[np.floating]) -> int:
    """Set what lies below -1024 to -1024, in place, and count it."""
    below = int(np.count_nonzero(values < LOWEST_HU))
    if below:
        np.maximum(values, LOWEST_HU, out=values)
    return below
