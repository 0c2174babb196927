"""Connections to ClickHouse: who and where, and how its absence is told. No SQL lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from retention_platform.errors import ServiceError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from retention_platform.settings import Settings

#: ClickHouse's code for a wrong user or password.
AUTHENTICATION_FAILED = 516


def connect(
    settings: Settings, *, timeout: float = 10.0, answer_timeout: int = 300, client_name: str = "retention"
) -> Client:
    """A client of the configured server.

    ``timeout`` is for connecting, ``answer_timeout`` for how long the server may then be silent, both in seconds.

    Raises ServiceError, in one line, when the server is away or refuses the credentials.
    """
    where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
    try:
        return clickhouse_connect.get_client(
            host=settings.clickhouse_host,
            port=settings.clickhouse_port,
            username=settings.clickhouse_user,
            password=settings.clickhouse_password.get_secret_value(),
            **settings.clickhouse_tls(),
            connect_timeout=timeout,
            send_receive_timeout=answer_timeout,
            # Without a session of its own a client may be used from several threads.
            autogenerate_session_id=False,
            client_name=client_name,
        )
    except DatabaseError as error:
        if getattr(error, "code", None) == AUTHENTICATION_FAILED or str(AUTHENTICATION_FAILED) in str(error):
            raise ServiceError(
                f"ClickHouse at {where} refuses user {settings.clickhouse_user!r}: "
                "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
            ) from None
        if settings.clickhouse_secure and "certificate" in f"{error} {error.__cause__}".lower():
            raise ServiceError(
                f"ClickHouse at {where} shows a certificate nobody trusts: set CLICKHOUSE_CA to its authority's file"
            ) from None
        if isinstance(error, OperationalError) or "ConnectionError" in type(error.__cause__).__name__:
            raise ServiceError(_away(where)) from None
        raise ServiceError(f"ClickHouse at {where}: {first_line(error)}") from None
    except OSError:
        raise ServiceError(_away(where)) from None


def _away(where: str) -> str:
    return f"ClickHouse at {where} does not answer: start it with `retention up`, or set CLICKHOUSE_HOST/PORT"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
