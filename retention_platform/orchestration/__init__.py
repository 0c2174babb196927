"""Dagster: observed raw tables, dbt models, checks, sensors, jobs. Wiring and watching only; no metric is defined here."""
