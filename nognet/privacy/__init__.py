"""Differential privacy whose record is the patient: DP-SGD steps and accountants."""
