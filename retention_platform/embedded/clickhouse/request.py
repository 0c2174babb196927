"""What a request asks for: its URL parameters and headers, read. Pure; the body is `server`'s."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from retention_platform.embedded.clickhouse.errors import refused
from retention_platform.embedded.clickhouse.users import User

MAX_SESSION_SECONDS = 3600
#: How long a client may stall, unless it says so: the engine's own http_receive_timeout and http_send_timeout.
STALL_SECONDS = 30.0

#: Parameters that speak to the HTTP interface alone, not to the engine.
_INTERFACE = frozenset(
    {
        *("query", "user", "password", "query_id", "session_id", "session_timeout", "session_check", "close_session"),
        *("compress", "decompress", "wait_end_of_query", "buffer_size", "quota_key", "role", "stacktrace"),
        *("client_protocol_version", "database", "default_format"),
    }
)
#: Settings that only tell this server how to answer. They are the engine's too, so it checks their values.
_ANSWERING = frozenset(
    {
        *("enable_http_compression", "http_zlib_compression_level", "send_progress_in_http_headers"),
        *("http_headers_progress_interval_ms", "http_wait_end_of_query", "http_response_buffer_size"),
        *("add_http_cors_header", "cancel_http_readonly_queries_on_client_close"),
    }
)
#: What a reader may set, as constraints of a server's profile would allow it: limits, and how values are written.
#: Nothing that holds an expression or a path.
_FOR_READERS = _ANSWERING | {
    *("max_execution_time", "max_threads", "max_memory_usage", "max_result_rows", "max_result_bytes"),
    *("max_rows_to_read", "max_bytes_to_read", "max_block_size", "result_overflow_mode", "timeout_overflow_mode"),
    *("read_overflow_mode", "session_timezone", "date_time_input_format", "date_time_output_format", "extremes"),
    *("cast_string_to_dynamic_use_inference", "output_format_native_write_json_as_string", "join_use_nulls"),
    *("output_format_json_quote_64bit_integers", "output_format_json_quote_denormals", "readonly", "log_comment"),
    *("output_format_json_array_of_rows", "format_csv_null_representation"),
    *("output_format_arrow_string_as_string", "output_format_parquet_string_as_string", "use_query_cache"),
    *("output_format_arrow_compression_method", "output_format_json_named_tuples_as_objects"),
    # Of inserts, which a reader makes none of: the JDBC driver sets them with each statement.
    *("async_insert", "wait_for_async_insert"),
}
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Asked:
    """What a request's head asks for; its body is still to come."""

    query: str
    query_id: str
    #: The client's revision of the protocol.
    revision: int
    output: str
    database: str
    settings: dict[str, str]
    parameters: dict[str, str]
    #: As the setting ``readonly``.
    read_only: str
    session: str
    session_timeout: int
    session_check: bool
    close_session: bool
    #: ClickHouse's own framing of what comes in and goes out.
    packed_in: bool
    packed_out: bool
    may_compress: bool
    zlib_level: int
    #: To be answered when the result is whole, or so many bytes of it are there.
    whole: bool
    buffer_bytes: int
    progress_seconds: float | None
    cors: bool
    #: How long a client may neither send what it has promised, nor take what it has asked for.
    receive_seconds: float | None
    send_seconds: float | None


def asked_of(user: User, method: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Asked:
    """What a request's URL (or form) and headers ask for. Raises EngineError."""
    for name, value in parameters.items():
        if not _is_text(name):
            raise refused("BAD_ARGUMENTS", 36, f"The name of the parameter {name!a} is not UTF-8.")
        if name != "query" and not _is_text(value):
            raise refused("BAD_ARGUMENTS", 36, f"The value of '{name}' is not UTF-8.")
    settings = {
        name: value
        for name, value in parameters.items()
        if name and name not in _INTERFACE and not name.startswith("param_")
    }
    if not user.may_write:
        for name in settings.keys() - _FOR_READERS:
            raise refused("READONLY", 164, f"Cannot modify '{name}' setting in readonly mode.")
    # A GET may not write; 2 is the server's level for it, which leaves other settings changeable.
    level = settings.pop("readonly", "0")
    settings = user.within_limits(settings)
    if not user.may_write:
        level = "1"
    elif level == "0" and method != "POST":
        level = "2"
    query_id = _CONTROL.sub("", parameters.get("query_id") or headers.get("X-ClickHouse-Query-Id") or "")
    role = parameters.get("role")
    if role:
        raise refused("UNKNOWN_ROLE", 511, f"There is no role `{role}` in user directories.")

    def on(name: str, default: bool = False) -> bool:
        return settings.get(name, parameters.get(name, str(int(default)))).lower() in ("1", "true")

    return Asked(
        query=parameters.get("query", ""),
        query_id=query_id or str(uuid.uuid4()),
        revision=_number(parameters, "client_protocol_version", 0),
        output=headers.get("X-ClickHouse-Format") or parameters.get("default_format") or "TabSeparated",
        database=headers.get("X-ClickHouse-Database") or parameters.get("database") or "",
        settings=settings,
        parameters={n.removeprefix("param_"): v for n, v in parameters.items() if n.startswith("param_")},
        read_only=level,
        session=parameters.get("session_id", ""),
        session_timeout=_session_timeout(parameters),
        session_check=on("session_check"),
        close_session=on("close_session"),
        packed_in=on("decompress"),
        packed_out=on("compress"),
        may_compress=on("enable_http_compression", default=True),
        zlib_level=_number(settings, "http_zlib_compression_level", 3, most=9),
        whole=on("http_wait_end_of_query", default=on("wait_end_of_query")),
        buffer_bytes=_number(parameters, "buffer_size", _number(settings, "http_response_buffer_size", 0)),
        progress_seconds=(
            _number(settings, "http_headers_progress_interval_ms", 100) / 1000
            if on("send_progress_in_http_headers")
            else None
        ),
        cors=on("add_http_cors_header"),
        receive_seconds=_seconds(settings, "http_receive_timeout"),
        send_seconds=_seconds(settings, "http_send_timeout"),
    )


def _is_text(value: str) -> bool:
    # Bytes that are no text are surrogates here.
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _session_timeout(parameters: Mapping[str, str]) -> int:
    value = parameters.get("session_timeout") or "60"
    if not (value.isascii() and value.isdigit()):
        raise refused("INVALID_SESSION_TIMEOUT", 374, f"Invalid session timeout: '{value}'.")
    if int(value) > MAX_SESSION_SECONDS:
        raise refused(
            "INVALID_SESSION_TIMEOUT",
            374,
            f"Session timeout '{value}' is larger than max_session_timeout: {MAX_SESSION_SECONDS}.",
        )
    return int(value)


def _seconds(settings: Mapping[str, str], name: str) -> float | None:
    """A time to wait for the other side; None without end, which is what 0 stands for."""
    value = settings.get(name, "")
    seconds = float(value) if _SECONDS.fullmatch(value) else STALL_SECONDS
    return seconds or None


def _number(settings: Mapping[str, str], name: str, default: int, most: int = 10**9) -> int:
    value = settings.get(name, "")
    # The engine tells what is wrong with a value that is no number.
    return min(int(value), most) if value.isascii() and value.isdigit() else default
