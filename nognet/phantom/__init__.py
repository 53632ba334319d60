"""Synthetic thoraxes with growing nodules, as real DICOM studies or directly as ROI pairs."""
