"""A log that shows what was done to it: each line carries the hash of the line before."""
