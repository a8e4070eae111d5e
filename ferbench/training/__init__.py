"""Shared by trainings with torch: the loop, plans, derived samples, checkpoints, devices. Nothing uses test data."""
