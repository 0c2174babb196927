"""Dagster: observed raw tables, dbt models, checks, sensors, jobs. Wiring and watching; no metric is defined here."""
