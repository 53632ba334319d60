"""Simulation: the same apps, all sites in one process, through Flower's own simulation loop."""
