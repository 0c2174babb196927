"""ClickHouse on one machine: the real engine (chDB) behind ClickHouse's own HTTP protocol.

To be read in this order:

- `cli`, `process`: the process and its end; `launch` for those who start one;
- `server`: a request from its head to its answer, by `request` (what it asks for), `users` and `accounts` (who asks),
  `answer` and `response` (what it gets), `protocol` (the connection), `codecs` and `blocks` (compressions);
- `engine`: a statement in the engine, by `session` (what outlives it), `pipes` (how data gets there and back), `names`
  (clients' query ids), `definer` (readers' rights), `catalogue` (tables of `system`), `native` (blocks for revisions
  of the protocol), `errors`;
- `sql`: what must be known of a statement's text.

Nothing outside of this package knows that the server is not ClickHouse's own; where it differs is written down in
docs/embedded-clickhouse.md.
"""

from retention_platform.embedded.clickhouse.launch import Running, running

__all__ = ["Running", "running"]
