"""FastAPI over the marts, read-only."""
