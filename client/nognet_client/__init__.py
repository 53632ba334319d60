"""The hospital: Flower's ClientApp and the processes around it."""
