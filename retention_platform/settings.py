"""Typed settings from the environment, read once; the only place that reads environment variables.

A running `retention up` writes the addresses it chose to ``run/stack.env`` in the state folder, so that other
terminals find its broker: real environment variables win over that file, and that file over the defaults.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from retention_platform.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DBT_PROJECT_DIR = PROJECT_ROOT / "dbt_project"
STACK_ENV = Path("run") / "stack.env"
#: The path under which a proxy shows a service: none, or like /api.
_PREFIX = r"^(/[A-Za-z0-9_-]+)*$"


class Settings(BaseSettings):
    """Every setting, with its default for a laptop. Names are the environment variables in lower case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    retention_home: Path = Field(default=PROJECT_ROOT / ".retention", description="state folder")

    clickhouse_host: str = "127.0.0.1"
    clickhouse_port: int = 8123
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_secure: bool = False

    kafka_bootstrap_servers: str = Field(default="", description="empty: no broker is known")
    kafka_partitions: int = Field(default=4, ge=1, description="of topics that `retention migrate` makes")
    kafka_group: str = "retention-ingest"
    kafka_log_id: str = Field(
        default="", description="names the log in deduplication tokens; empty: asked of the broker"
    )

    api_host: str = "127.0.0.1"
    api_port: int = 8000
    api_root_path: str = Field(
        default="", pattern=_PREFIX, description="under which path a proxy shows the API; it is served without as well"
    )
    api_keys: SecretStr = Field(default=SecretStr(""), description="who may ask: comma-separated; empty: everybody")
    api_rate_limit: int = Field(default=0, ge=0, description="requests a minute and client; 0: as many as they like")
    api_cors_origins: str = Field(default="", description="web origins that may ask from a browser, comma-separated")
    dagster_host: str = "127.0.0.1"
    dagster_port: int = 3000
    dagster_path_prefix: str = Field(
        default="",
        pattern=_PREFIX,
        description="where on its port Dagster is, as its option --path-prefix; empty: all of it",
    )
    docs_host: str = "127.0.0.1"
    docs_port: int = Field(default=8082, description="dbt's documentation of every model and column")
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 8501
    api_base_url: str = "http://127.0.0.1:8000"

    ingest_batch_rows: int = Field(default=50_000, ge=1)
    ingest_batch_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    ingest_batch_seconds: float = Field(default=1.0, gt=0)
    ingest_answer_seconds: int = Field(
        default=60, ge=1, description="how long ClickHouse may be silent on a batch before it is sent again"
    )

    ingest_metrics_host: str = "127.0.0.1"
    ingest_metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus figures of ingest; 0: none")
    ingest_deduplicate: bool = Field(default=True, description="off only to show what it prevents")

    openai_api_key: SecretStr = Field(default=SecretStr(""), description="empty: insights are made by rules")
    openai_base_url: str = Field(default="", description="a server that speaks the same protocol; empty: OpenAI's")
    openai_model: str = "gpt-4.1-mini"
    openai_timeout_seconds: float = Field(default=60.0, gt=0)
    openai_input_price: float | None = Field(default=None, ge=0, description="of a million tokens; empty: cost unknown")
    openai_output_price: float | None = Field(
        default=None, ge=0, description="of a million tokens; empty: cost unknown"
    )
    insights_max_calls_per_run: int = Field(default=20, ge=0, description="answers of a language model asked for")
    alert_webhook_url: SecretStr = Field(default=SecretStr(""), description="alerts are posted there as JSON")

    raw_ttl_days: int = Field(default=0, ge=0, description="drop raw events after so many days; 0 keeps all")

    def api_key_list(self) -> tuple[bytes, ...]:
        """The keys that the API accepts; none when everybody may ask."""
        return tuple(key.encode() for key in _listed(self.api_keys.get_secret_value()))

    def api_cors_origin_list(self) -> list[str]:
        """Web origins whose pages may ask the API from a browser."""
        return _listed(self.api_cors_origins)

    @property
    def dagster_url(self) -> str:
        """Where Dagster's webserver is."""
        return f"http://{self.dagster_host}:{self.dagster_port}{self.dagster_path_prefix}"

    def kafka_config(self) -> dict[str, Any]:
        """librdkafka's settings to reach the broker. Raises SettingsError when none is known."""
        if not self.kafka_bootstrap_servers:
            raise SettingsError(
                "no Kafka broker is known: start one with `retention up`, or set KAFKA_BOOTSTRAP_SERVERS=host:port"
            )
        return {"bootstrap.servers": self.kafka_bootstrap_servers}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@functools.cache
def get_settings() -> Settings:
    """The process's settings. Raises SettingsError naming the variable that cannot be used."""
    return load_settings()


def load_settings(**overrides: Any) -> Settings:
    """Settings read afresh; ``overrides`` win over everything (for tests)."""
    home = Path(overrides.get("retention_home") or os.environ.get("RETENTION_HOME") or PROJECT_ROOT / ".retention")
    home = home.expanduser().absolute()
    try:
        return Settings(_env_file=home / STACK_ENV, **{**overrides, "retention_home": home})  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise SettingsError(f"{name}={first['input']!r} cannot be used: {first['msg'].lower()}") from None
