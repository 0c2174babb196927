"""Typed settings from the environment, read once; the only place that reads environment variables.

A running `retention up` writes the addresses it chose to ``run/stack.env`` in the state folder, so that other
terminals find its broker: real environment variables win over that file, and that file over the defaults.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from retention_platform.errors import SettingsError
from retention_platform.logs import LogFormat

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DBT_PROJECT_DIR = PROJECT_ROOT / "dbt_project"
STACK_ENV = Path("run") / "stack.env"
#: A shorter key of pseudonyms could be found by trying.
MIN_KEY_CHARACTERS = 32
#: The path under which a proxy shows a service: none, or like /api.
_PREFIX = r"^(/[A-Za-z0-9_-]+)*$"


class Settings(BaseSettings):
    """Every setting, with its default for a laptop. Names are the environment variables in lower case."""

    # An empty variable is one that is not set: docker-compose.yml passes optional ones so.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    log_format: LogFormat = Field(default="colored", description="json: one object a line; colored: for people")
    retention_home: Path = Field(default=PROJECT_ROOT / ".retention", description="state folder")

    clickhouse_host: str = "127.0.0.1"
    clickhouse_port: int = 8123
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_secure: bool = Field(default=False, description="speak HTTPS with it")
    clickhouse_ca: Path | None = Field(default=None, description="PEM file of the authority; empty: the system's")
    clickhouse_verify: bool = Field(default=True, description="off: encrypted, and no telling with whom")
    clickhouse_cluster: str = Field(
        default="", pattern=r"^\w*$", description="whose replicas all hold everything; empty: one server"
    )
    clickhouse_sharded: bool = Field(
        default=False, description="the stream is spread over the cluster's shards by video"
    )

    kafka_bootstrap_servers: str = Field(default="", description="empty: no broker is known")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ssl_ca: Path | None = Field(default=None, description="PEM file of the authority; empty: the system's")
    kafka_ssl_cert: Path | None = Field(default=None, description="PEM file of our certificate, for mutual TLS")
    kafka_ssl_key: Path | None = Field(default=None, description="PEM file of our certificate's key")
    kafka_ssl_key_password: SecretStr = SecretStr("")
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    kafka_sasl_user: str = ""
    kafka_sasl_password: SecretStr = SecretStr("")
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
    api_stop_seconds: int = Field(default=2, ge=1, description="how long answers under way may take when it is stopped")
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

    ingest_batch_rows: int = Field(default=100_000, ge=1)
    ingest_batch_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
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

    viewer_id_hmac_key: SecretStr = Field(
        default=SecretStr(""), description="viewer ids are stored as HMAC-SHA256 under it; empty: as they come"
    )
    viewer_id_hmac_key_file: Path | None = Field(default=None, description="or the file that holds the key")

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
        config: dict[str, Any] = {"bootstrap.servers": self.kafka_bootstrap_servers}
        if self.kafka_security_protocol != "PLAINTEXT":
            config["security.protocol"] = self.kafka_security_protocol
        for name, path in (
            ("ssl.ca.location", self.kafka_ssl_ca),
            ("ssl.certificate.location", self.kafka_ssl_cert),
            ("ssl.key.location", self.kafka_ssl_key),
        ):
            if path is not None:
                config[name] = str(path)
        if self.kafka_ssl_key_password.get_secret_value():
            config["ssl.key.password"] = self.kafka_ssl_key_password.get_secret_value()
        if self.kafka_sasl_mechanism:
            config["sasl.mechanism"] = self.kafka_sasl_mechanism
            config["sasl.username"] = self.kafka_sasl_user
            config["sasl.password"] = self.kafka_sasl_password.get_secret_value()
        return config

    def viewer_id_key(self) -> bytes | None:
        """The key of viewers' pseudonyms; None when there is none. Raises SettingsError where it is no key."""
        path, key = self.viewer_id_hmac_key_file, self.viewer_id_hmac_key.get_secret_value()
        if path is not None:
            if key:
                raise SettingsError("VIEWER_ID_HMAC_KEY and VIEWER_ID_HMAC_KEY_FILE: set one of them")
            try:
                key = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeError) as error:
                raise SettingsError(f"VIEWER_ID_HMAC_KEY_FILE: {path} cannot be read ({error})") from None
        elif not key:
            return None
        if len(key) < MIN_KEY_CHARACTERS:
            raise SettingsError(
                f"the key of VIEWER_ID_HMAC_KEY has {len(key)} characters, {MIN_KEY_CHARACTERS} are the least: "
                "make one with `openssl rand -hex 32`"
            )
        return key.encode()

    def clickhouse_tls(self) -> dict[str, Any]:
        """What a clickhouse-connect client is told of encryption."""
        ca = str(self.clickhouse_ca) if self.clickhouse_ca else None
        return {"secure": self.clickhouse_secure, "verify": self.clickhouse_verify, "ca_cert": ca}

    def _check_kafka(self) -> None:
        """Raise SettingsError for what librdkafka would silently ignore, or refuse in words of its own."""
        protocol = self.kafka_security_protocol
        tls, sasl = protocol.endswith("SSL"), protocol.startswith("SASL")
        files = [name for name in ("kafka_ssl_ca", "kafka_ssl_cert", "kafka_ssl_key") if getattr(self, name)]
        if files and not tls:
            raise SettingsError(
                f"{files[0].upper()} has no effect with KAFKA_SECURITY_PROTOCOL={protocol}: choose SSL or SASL_SSL"
            )
        if bool(self.kafka_ssl_cert) != bool(self.kafka_ssl_key):
            raise SettingsError("KAFKA_SSL_CERT and KAFKA_SSL_KEY belong together: set both, or neither")
        if self.kafka_ssl_key_password.get_secret_value() and not self.kafka_ssl_key:
            raise SettingsError("KAFKA_SSL_KEY_PASSWORD has no effect without KAFKA_SSL_KEY")
        credentials = (
            ("KAFKA_SASL_MECHANISM", self.kafka_sasl_mechanism),
            ("KAFKA_SASL_USER", self.kafka_sasl_user),
            ("KAFKA_SASL_PASSWORD", self.kafka_sasl_password.get_secret_value()),
        )
        for name, value in credentials:
            if sasl and not value:
                raise SettingsError(f"KAFKA_SECURITY_PROTOCOL={protocol} needs {name}")
            if value and not sasl:
                raise SettingsError(
                    f"{name} has no effect with KAFKA_SECURITY_PROTOCOL={protocol}: choose SASL_SSL or SASL_PLAINTEXT"
                )

    def _check_clickhouse(self) -> None:
        """Raise SettingsError where encryption or shards were asked for that would not be."""
        if self.clickhouse_sharded and not self.clickhouse_cluster:
            raise SettingsError("CLICKHOUSE_SHARDED has no effect without CLICKHOUSE_CLUSTER: name the cluster")
        if self.clickhouse_secure:
            if self.clickhouse_ca and not self.clickhouse_verify:
                raise SettingsError("CLICKHOUSE_CA has no effect with CLICKHOUSE_VERIFY=false: unset one of them")
        elif self.clickhouse_ca or not self.clickhouse_verify:
            name = "CLICKHOUSE_CA" if self.clickhouse_ca else "CLICKHOUSE_VERIFY"
            raise SettingsError(f"{name} has no effect without encryption: set CLICKHOUSE_SECURE=true")

    def check(self) -> Settings:
        """These settings. Raises SettingsError when some of them cannot be used together, or a file is not there."""
        self._check_kafka()
        self._check_clickhouse()
        self.viewer_id_key()
        for name in ("clickhouse_ca", "kafka_ssl_ca", "kafka_ssl_cert", "kafka_ssl_key"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise SettingsError(f"{name.upper()}: there is no file {path}")
        return self


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
        settings = Settings(  # type: ignore[call-arg]
            _env_file=home / STACK_ENV, **{**overrides, "retention_home": home}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise SettingsError(f"{name}={first['input']!r} cannot be used: {first['msg'].lower()}") from None
    return settings.check()
