"""The laptop's stack: development broker, ClickHouse over HTTP on chDB, and the process supervisor."""
