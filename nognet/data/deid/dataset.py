"""De-identify one DICOM data set: keep what is allowed, map what identifies, shift the dates.

`dicognito` maps the UIDs and PatientID, seeded by the site's key. Its shift of dates isn't used: it
shifts all patients alike and by hours, so that two dates with and without a time of day can drift
apart by a day. Here each patient has a shift of whole days of his own, so intervals stay exact.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from nognet.data.ct.dicom_file import PYDICOM_ERRORS
from nognet.data.ct.tags import sequence_of, text_of
from nognet.data.deid import rules
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.scan_values import parse_date
from nognet.errors import SiteDataError

if TYPE_CHECKING:
    from dicognito.anonymizer import Anonymizer

LEAST_SHIFT_DAYS = 365
SHIFT_RANGE_DAYS = 9 * 365
SHORTEST_TOKEN = 3
LONG_TOKEN = 5
"""Shorter words could occur in compressed pixels by chance."""
ALL_TEXTS = (*rules.TIMES, *rules.CODE_STRINGS, *rules.MACHINE_TEXTS, "ContrastBolusAgent")
METHOD = "nognet allowlist; dicognito UIDs; dates shifted per patient"
IDENTIFYING = (
    "PatientID", "PatientName", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
    "PatientMotherBirthName", "AccessionNumber", "MedicalRecordLocator", "PatientAddress",
)  # fmt: skip


@dataclass(frozen=True)
class Identities:
    """Gives fake identities, the same each time for the same key."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, pseudonyms: Pseudonyms) -> Identities:
        """Derive a key of its own, so that an export can't be linked to the site's pseudonyms."""
        return cls(hmac.new(pseudonyms.key, b"de-identified export", hashlib.sha256).digest())

    def shift_days(self, patient: str) -> int:
        """Give the days by which a patient's dates go back; 1 to 10 years."""
        digest = hmac.new(self.key, f"shift {patient}".encode(), hashlib.sha256).digest()
        return LEAST_SHIFT_DAYS + int.from_bytes(digest) % SHIFT_RANGE_DAYS

    def anonymizer(self) -> Anonymizer:
        """Make dicognito's anonymizer.

        Raises:
            SiteDataError: dicognito is not installed.
        """
        try:
            from dicognito.anonymizer import Anonymizer
            from dicognito.value_keeper import ValueKeeper
        except ImportError as err:
            raise SiteDataError(
                "nognet deidentify needs the library dicognito, which is not installed; run "
                "`deploy/setup_venv.sh .venv deid` in the folder that nognet was installed from",
                code="no-dicognito",
            ) from err
        seed = hmac.new(self.key, b"seed", hashlib.sha256).hexdigest()
        anonymizer = Anonymizer(id_prefix="NG", seed=seed)
        for name in (*rules.DATES, *rules.TIMES):
            anonymizer.add_element_handler(ValueKeeper(name))  # they are shifted already
        return anonymizer


def deidentified(
    data: FileDataset, patient: str, identities: Identities, anonymizer: Anonymizer
) -> FileDataset:
    """Make the de-identified copy of a data set; the original is left as it is.

    Args:
        data: As read with its pixels.
        patient: PatientID, or what stands for it where that is empty.
        identities: The site's fake identities.
        anonymizer: Of `identities`.

    Raises:
        SiteDataError: the pixels hold the patient's name or ID as text.
    """
    tokens = identity_tokens(data)
    _check_pixels(data, tokens)
    kept = _kept(data, _Context(identities.shift_days(patient), tokens))
    meta, old = FileMetaDataset(), data.file_meta
    kept.SOPClassUID = data.get("SOPClassUID") or old.MediaStorageSOPClassUID
    kept.SOPInstanceUID = data.get("SOPInstanceUID") or old.MediaStorageSOPInstanceUID
    meta.MediaStorageSOPClassUID = kept.SOPClassUID
    meta.MediaStorageSOPInstanceUID = kept.SOPInstanceUID
    meta.TransferSyntaxUID = old.TransferSyntaxUID
    if sequence_of(data, "ContrastBolusAgentSequence"):
        kept.ContrastBolusAgent = "CONTRAST"
    kept.PatientID = patient
    out = FileDataset("", kept, file_meta=meta, preamble=bytes(128))
    anonymizer.anonymize(out)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    out.SpecificCharacterSet = "ISO_IR 192"
    out.PatientName = out.PatientID
    for name in ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "AccessionNumber",
                 "StudyID"):  # fmt: skip
        setattr(out, name, "")  # the standard wants them there, empty or not
    if "ROIContourSequence" in out:
        out.StructureSetLabel = "STRUCTURES"
    out.PatientIdentityRemoved = "YES"
    out.LongitudinalTemporalInformationModified = "MODIFIED"
    out.DeidentificationMethod = METHOD
    return out


def identity_tokens(data: Dataset) -> frozenset[str]:
    """Collect the words, lower case, by which a text would name the patient."""
    found: set[str] = set()
    for name in IDENTIFYING:
        text = text_of(data, name).casefold()
        found |= {text.strip(), *re.split(r"[\W_]+", text)}
    return frozenset(token for token in found if len(token) >= SHORTEST_TOKEN)


@dataclass(frozen=True)
class _Context:
    shift_days: int
    tokens: frozenset[str]


def _kept(data: Dataset, context: _Context, number: int = 0) -> Dataset:
    """Copy what is allowed, sequences item by item."""
    kept = Dataset()
    for element in _readable(data):
        copy = _kept_element(element, context, number)
        if copy is not None:
            kept.add(copy)
    return kept


def _readable(data: Dataset) -> Iterator[DataElement]:
    for tag in list(data.keys()):
        if not tag.is_private:
            # a value that can't be read can't be checked: it is left out
            with contextlib.suppress(*PYDICOM_ERRORS, OSError):
                element = data[tag]
                # text under the VR of a number would pass as one: the standard's VR must be its own
                if element.VR in dictionary_VR(tag).split(" or "):
                    yield element


def _kept_element(element: DataElement, context: _Context, number: int) -> DataElement | None:
    name, group = element.keyword, element.tag.group
    if element.VR == "SQ":
        return _kept_sequence(element, context)
    if group in rules.REMOVED_GROUPS or group >> 8 in rules.DRAWN_OVER:
        return None
    if name in rules.PIXEL_DATA or (element.VR in rules.NUMERIC_VRS and name not in rules.FIXED):
        return element
    if element.VR == "UI":
        return None if name in rules.REMOVED_UIDS else _new(element, element.value)
    if name in rules.DATES:
        return _new(element, _shifted(element, context.shift_days))
    text = _kept_text(name, element, context.tokens, number)
    return None if text is None else _new(element, text)


def _kept_sequence(element: DataElement, context: _Context) -> DataElement | None:
    if element.keyword in rules.CODE_SEQUENCES:
        return _new(element, DicomSequence([rules.code_item(item) for item in element.value]))
    if element.keyword not in rules.SEQUENCES:
        return None
    items = [_kept(item, context, number) for number, item in enumerate(element.value, start=1)]
    return _new(element, DicomSequence(items))


def _kept_text(
    name: str, element: DataElement, tokens: frozenset[str], number: int
) -> str | list[str] | None:
    """Give the text that a tag may keep; None where it may keep none."""
    if element.VM == 0:
        return "" if name in ALL_TEXTS else None
    values = [str(v) for v in (element.value if element.VM > 1 else [element.value])]
    if name in rules.HUMAN_NAMES:
        return rules.plain_name(str(element.value), number)
    if name == "ContrastBolusAgent":
        return rules.contrast_word(str(element.value))
    if name in rules.TIMES:
        return "000000" if element.value else ""
    kept = name in rules.MACHINE_TEXTS or (
        name in rules.CODE_STRINGS and all(map(rules.CODE_STRING.fullmatch, values))
    )
    if kept and not any(token in value.casefold() for token in tokens for value in values):
        return values
    return rules.FIXED.get(name)


def _shifted(element: DataElement, days: int) -> str:
    """Shift a date back; of a date with time the day alone is kept."""
    day = parse_date(str(element.value))
    return (day - dt.timedelta(days=days)).strftime("%Y%m%d") if day else ""


def _new(element: DataElement, value: object) -> DataElement:
    return DataElement(element.tag, element.VR, value)


def _check_pixels(data: Dataset, tokens: frozenset[str]) -> None:
    """Refuse compressed pixels that hold the patient's name or ID: codecs have comments."""
    if data.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in data:
        pixels = data.PixelData.lower()
        if any(len(t) >= LONG_TOKEN and t.encode() in pixels for t in tokens):
            raise SiteDataError(
                "the compressed pixels hold the patient's name or ID as a comment",
                code="text-in-pixels",
            )
