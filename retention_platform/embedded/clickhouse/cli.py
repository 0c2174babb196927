"""The words `retention serve clickhouse`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from retention_platform.settings import get_settings

app = typer.Typer(help="Serve one part of the stack alone.", no_args_is_help=True)


@app.callback()
def _serve() -> None:
    pass


@app.command()
def clickhouse(
    path: Annotated[
        Path | None, typer.Option(help="Data folder; made when it does not exist. The stack's own by default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's asks for passwords.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on, CLICKHOUSE_PORT by default; 0 chooses one."),
    ] = None,
) -> None:
    """Serve a data folder as ClickHouse does, over HTTP, until stopped.

    Users and passwords: default (CLICKHOUSE_PASSWORD), and for reading api (CLICKHOUSE_API_PASSWORD) and bi
    (CLICKHOUSE_BI_PASSWORD).
    """
    from retention_platform.embedded.clickhouse import process

    settings = get_settings()
    folder = path or settings.retention_home / "clickhouse"
    # The settings know more places than the environment.
    environment = {**os.environ, "CLICKHOUSE_PASSWORD": settings.clickhouse_password.get_secret_value()}
    process.run(folder, host, settings.clickhouse_port if port is None else port, environment)
