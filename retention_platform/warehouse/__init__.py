"""The ClickHouse client and the raw schema; it knows SQL and connections, not metrics."""
