"""Seconds of a round that are not work: ours beside a plain Flower app of the same payload."""
