"""ClickHouse on one machine: the real engine (chDB) behind ClickHouse's own HTTP protocol.

Owns the process (`process`), the protocol (`server`, `request`, `response`, `encoding`), what must be known of a
statement's text (`sql`), the users (`users`, `definer`) and the engine (`engine`, `session`). Read in that order.
Nothing outside of this package knows that the server is not ClickHouse's own; docs/embedded-clickhouse.md says where it differs.
"""

from retention_platform.embedded.clickhouse.process import Running, running, serve

__all__ = ["Running", "running", "serve"]
