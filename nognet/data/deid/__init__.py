"""De-identified export of a site's DICOM files."""
