"""The coordinator: Flower's ServerApp, the round loop and the processes around it."""
