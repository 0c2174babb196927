"""``python -m retention_platform.embedded.clickhouse``: serve a data folder."""

from retention_platform.embedded.clickhouse.process import main

main()
