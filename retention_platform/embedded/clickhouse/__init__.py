"""ClickHouse on one machine: the real engine (chDB) behind ClickHouse's own HTTP protocol.

Owns the process (`process`, and `launch` for those who start one), the protocol (`server`, `request`, `answer`,
`response`, `codecs`, `blocks`, `protocol`), what must be known of a statement's text (`sql`), the users (`users`) and
the engine (`engine`, `session`, `pipes`).
Nothing outside of this package knows that the server is not ClickHouse's own; where it differs is written down in
docs/embedded-clickhouse.md.
"""

from retention_platform.embedded.clickhouse.launch import Running, running

__all__ = ["Running", "running"]
