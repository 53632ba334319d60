"""A contest of networks: the same pairs, the same budget, the same metrics, with intervals."""
