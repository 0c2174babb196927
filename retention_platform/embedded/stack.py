"""What the laptop's stack is made of: programs, the order they start and stop in, and where they keep things.

Pure descriptions; `supervisor` runs them, `up` and `down` are the stories around it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from retention_platform.settings import PROJECT_ROOT, STACK_ENV, Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Home:
    """The state folder's layout."""

    path: Path

    @property
    def run(self) -> Path:
        """What is true only while the stack runs."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """One log file a program."""
        return self.path / "logs"

    @property
    def clickhouse(self) -> Path:
        """The warehouse's data."""
        return self.path / "clickhouse"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME: its configuration, runs and schedules."""
        return self.path / "dagster"

    @property
    def lock(self) -> Path:
        """Held by the run that owns the folder."""
        return self.run / "up.lock"

    @property
    def pid(self) -> Path:
        """The process id of the run that owns the folder."""
        return self.run / "up.pid"

    @property
    def ready(self) -> Path:
        """Exists while the stack is ready."""
        return self.run / "ready"

    @property
    def stack_env(self) -> Path:
        """The addresses of the running stack, read by `settings`."""
        return self.path / STACK_ENV

    @property
    def broker_address(self) -> Path:
        """Where the development broker writes its address."""
        return self.run / "broker.address"

    @property
    def workspace(self) -> Path:
        """Dagster's workspace: the code server that this run started."""
        return self.run / "workspace.yaml"

    @property
    def history(self) -> Path:
        """What history was loaded, so that an interrupted load is finished and a finished one not repeated."""
        return self.path / "history.json"

    @property
    def socket(self) -> Path:
        """The supervisor's socket; in the temporary folder, since a socket's path may have 107 bytes only."""
        name = hashlib.sha256(str(self.path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"retention-{os.getuid()}-{name}.sock"


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    #: What a person calls it.
    title: str
    #: Seconds it may take to end before it is killed.
    stop_seconds: int = 4
    env: dict[str, str] = field(default_factory=dict)


def uses_own_broker(settings: Settings) -> bool:
    """Whether the stack starts its own broker: no address was given in the environment."""
    return "kafka_bootstrap_servers" not in settings.model_fields_set


def uses_own_clickhouse(settings: Settings) -> bool:
    """Whether the stack starts its own ClickHouse: no host was given in the environment."""
    return "clickhouse_host" not in settings.model_fields_set


def programs(settings: Settings, home: Home, code_port: int, *, live: tuple[str, ...] | None) -> list[Program]:
    """All programs of the stack in the order they start; they stop in the order of `stop_order`.

    ``live`` are the live producer's options; None leaves the producer out.
    """
    python = (sys.executable, "-m")
    parts = []
    if uses_own_broker(settings):
        parts.append(
            Program(
                "broker",
                (*python, "retention_platform.embedded.broker", "--address-file", str(home.broker_address)),
                "Broker",
                stop_seconds=2,
            )
        )
    if uses_own_clickhouse(settings):
        parts.append(
            Program(
                "clickhouse",
                (
                    *python,
                    "retention_platform.embedded.clickhouse",
                    *("--path", str(home.clickhouse)),
                    *("--host", LOOPBACK),
                    *("--port", str(settings.clickhouse_port)),
                ),
                "ClickHouse",
            )
        )
    workspace = ("-w", str(home.workspace))
    log_format = ("--log-format", settings.log_format)
    parts += [
        Program("ingest", (*python, "retention_platform.cli", "ingest"), "Ingest"),
        Program("api", (*python, "retention_platform.api"), "API"),
        Program("docs", (*python, "retention_platform.docs_site"), "Documentation", stop_seconds=2),
        Program("dashboard", (*python, "retention_platform.dashboard"), "Dashboard"),
        Program(
            "dagster-code",
            (
                # Runs are its children. Who looks at a page meanwhile does not wait for them.
                *("nice", "-n", "10"),
                *python,
                "dagster",
                *("api", "grpc", "--module-name", "retention_platform.definitions"),
                *("--host", LOOPBACK, "--port", str(code_port)),
                *("--log-level", "warning", *log_format, "--use-python-environment-entry-point"),
            ),
            "Dagster code",
        ),
        Program(
            "dagster-webserver",
            (
                *python,
                "dagster_webserver",
                *workspace,
                *log_format,
                *("--host", settings.dagster_host, "--port", str(settings.dagster_port)),
                *(("--path-prefix", settings.dagster_path_prefix) if settings.dagster_path_prefix else ()),
            ),
            "Dagster UI",
        ),
        Program("dagster-daemon", (*python, "dagster._daemon", "run", *workspace, *log_format), "Dagster daemon"),
    ]
    if live is not None:
        parts.append(
            Program("producer", (*python, "retention_platform.cli", "produce", *live), "Producer", stop_seconds=3)
        )
    return parts


#: After the producer has stopped and ingest has drained the topic: what stops together, group after group.
STOP_ORDER: tuple[tuple[str, ...], ...] = (
    ("producer",),
    ("ingest", "dagster-daemon", "dagster-webserver", "dagster-code", "dashboard", "api", "docs"),
    ("clickhouse", "broker"),
)


def workspace_yaml(code_port: int) -> str:
    """Dagster's workspace file for the code server on ``code_port``."""
    return (
        "load_from:\n"
        f"  - grpc_server:\n      host: {LOOPBACK}\n      port: {code_port}\n      location_name: retention\n"
    )


def stack_env(values: dict[str, str]) -> str:
    """The text of ``stack.env``: one NAME=value a line."""
    return "".join(f"{name}={value}\n" for name, value in values.items())


def child_environment(settings: Settings, home: Home) -> dict[str, str]:
    """The environment every program starts with: ours, the state folder, addresses, telemetry off."""
    return {
        **os.environ,
        "RETENTION_HOME": str(home.path),
        "DAGSTER_HOME": str(home.dagster),
        "CLICKHOUSE_HOST": settings.clickhouse_host,
        "CLICKHOUSE_PORT": str(settings.clickhouse_port),
        "CLICKHOUSE_USER": settings.clickhouse_user,
        "CLICKHOUSE_PASSWORD": settings.clickhouse_password.get_secret_value(),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH")))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }
