"""Dagster assets, sensors, checks and resources; wiring only, no metrics."""
