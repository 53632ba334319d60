"""Inspect whatever lies below a path: every series, mask and other file, one row each."""

from nognet.data.inspect_tree.examine import ExaminedCt, examine_ct
from nognet.data.inspect_tree.tree import inspect

__all__ = ["ExaminedCt", "examine_ct", "inspect"]
