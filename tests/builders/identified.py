"""Files with what identifies a patient in every corner of them."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

PEOPLE = {"MRN-778812": "Geheim^Erika^Anna", "MRN-990045": "Vertraulich^Otto"}


def identify(path: Path, patient: str, date: str) -> None:
    """Put what identifies into every corner of a file."""
    data = pydicom.dcmread(path)
    data.PatientID, data.PatientName = patient, PEOPLE[patient]
    data.PatientBirthDate, data.OtherPatientIDs = "19511224", [patient + "-OLD"]
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = date
    data.StudyTime, data.AccessionNumber = "101112", "ACC445566"
    data.InstitutionName, data.ReferringPhysicianName = "Klinik am See", "Dr. Arzt"
    data.SeriesDescription = data.StudyDescription = f"Geheimnis von {PEOPLE[patient]} {date}"
    data.ImageComments, data.StationName = "Kommentar", "ST-KOPF"
    data.ContrastBolusAgent = "Ultravist, Erika"
    data.SeriesNumber, data.BodyPartExamined = int(patient[4:]), "ERIKA"
    data.Manufacturer, data.ProtocolName = "SIEMENS", "Thorax Dr. Arzt"
    request = Dataset()
    request.RequestedProcedureDescription, request.AccessionNumber = "Geheim", "ACC445566"
    data.RequestAttributesSequence = [request]
    block = data.private_block(0x0029, "GEHEIM CREATOR", create=True)
    block.add_new(0x01, "LO", PEOPLE[patient])
    data.add_new(0x60000010, "US", 8)
    data.add_new(0x60003000, "OW", b"OVERLAY-TEXT")
    data.add_new(0x60000022, "LO", "overlay-text")
    data.preamble = b"Geheim Erika".ljust(128)
    data.file_meta.SourceApplicationEntityTitle = "ST-KOPF"
    data.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5.6.7.8.9"
    data.file_meta.PrivateInformation = b"Geheim"
    data.save_as(path)
