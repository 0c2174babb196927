"""Retention: players' events to retention curves, on Kafka, ClickHouse, dbt and Dagster."""

__version__ = "0.1.0"
