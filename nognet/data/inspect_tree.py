"""Inspect whatever lies below a path: every series, mask and other file, one row each."""

from nognet.data.examine import ExaminedCt, examine_ct

__all__ = ["ExaminedCt", "examine_ct"]
