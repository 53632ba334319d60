"""A run from its first weights to its model: its folder, state, checkpoints, and how it goes on."""
