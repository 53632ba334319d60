"""Nodules' masks, whatever they were stored as, onto the grid of their CT."""
