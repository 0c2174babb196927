"""The REST API: read-only over the marts. It computes no metric; that is dbt's."""
