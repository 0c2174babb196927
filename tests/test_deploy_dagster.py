"""Dagster as it is deployed: code server, webserver and daemon as processes of their own, and Postgres underneath.

Started by the very commands of docker-compose.yml; only paths, addresses and ports are this machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest

from retention_platform.embedded.up import free_port
from retention_platform.settings import PROJECT_ROOT
from tests import oracle
from tests.conftest import Warehouse
from tests.dbt_support import Chain
from tests.test_deploy_compose import services
from tests.test_orchestration_chain import EVENTS, VIDEOS

#: Debian's server is not on the PATH.
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
INITDB = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, BINARIES)]))
pytestmark = pytest.mark.skipif(INITDB is None, reason="Postgres is not installed (Debian: postgresql)")

PATIENCE = 120.0
#: What a service may take to end when it is told to.
SECONDS_TO_END = 10.0
PASSWORD = "of the test"


def eventually(what: str, done: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        for process in processes:
            assert process.poll() is None, f"{process.args} ended while waiting for {what}"
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """A server with user, password and database `dagster`, as docker-compose.yml has it; its port."""
    assert INITDB
    # It refuses to run as root, and another user sees nothing of pytest's own folders.
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="retention-postgres-"))
    port = free_port()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if user:
        for path in (folder, secret):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    options = {"user": user, "cwd": folder}
    data, server = folder / "data", Path(INITDB).resolve().with_name("postgres")
    try:
        subprocess.run(
            [
                INITDB,
                "--pgdata",
                data,
                "--username",
                "dagster",
                "--auth",
                "scram-sha-256",
                "--pwfile",
                secret,
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            **options,
        )
        arguments = [
            "-D",
            data,
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={folder}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([server, *arguments], stdout=log, stderr=log, **options)
        try:
            eventually("Postgres", lambda: answers(port), process)
            with contextlib.closing(connection(port, "postgres")) as admin:
                admin.autocommit = True
                admin.cursor().execute("create database dagster")
            yield port
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder)


def connection(port: int, database: str = "dagster") -> psycopg2.extensions.connection:
    return psycopg2.connect(host="127.0.0.1", port=port, user="dagster", password=PASSWORD, dbname=database)


def answers(port: int) -> bool:
    try:
        connection(port, "postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


class Deployed:
    """Dagster's services, their commands and variables as docker-compose.yml has them."""

    def __init__(self, folder: Path, database_port: int, warehouse: Warehouse) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.home = folder / "home"
        self.home.mkdir()
        # As the Dockerfile makes it.
        deploy = PROJECT_ROOT / "deploy" / "dagster"
        parts = (PROJECT_ROOT / "dagster.yaml", deploy / "postgres.yaml")
        (self.home / "dagster.yaml").write_text("".join(part.read_text() for part in parts))
        shutil.copy(deploy / "workspace.yaml", self.home)
        # As the container's file system, but for who may do everything anyway.
        self.home.chmod(0o500)
        self.ports = {"4000": str(free_port()), "3000": str(free_port())}
        self._folder = folder
        self._places = {
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_STATE": str(self.state),
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(database_port),
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": self.ports["4000"],
            "RETENTION_HOME": str(self.state),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "CLICKHOUSE_HOST": warehouse.settings.clickhouse_host,
            "CLICKHOUSE_PORT": str(warehouse.settings.clickhouse_port),
            "CLICKHOUSE_USER": "default",
            "CLICKHOUSE_PASSWORD": "",
            "KAFKA_BOOTSTRAP_SERVERS": "",
        }

    def _environment(self, name: str) -> dict[str, str]:
        told = {key: str(value) for key, value in services()[name]["environment"].items()}
        known = {"PATH", "HOME", "PYTHONPATH"}
        kept = {key: value for key, value in os.environ.items() if key in known}
        always = ("DAGSTER_HOME", "DAGSTER_STATE", "RETENTION_HOME", "DAGSTER_DISABLE_TELEMETRY")
        places = {key: value for key, value in self._places.items() if key in told or key in always}
        return {**kept, **told, **places}

    def _command(self, words: list[str]) -> list[str]:
        replaced = {"/opt/retention/dagster": str(self.home), "0.0.0.0": "127.0.0.1", **self.ports}
        # As LOG_FORMAT=json in .env makes it.
        replaced |= {"--log-format=colored": "--log-format=json"}
        for old, new in replaced.items():
            words = [word.replace(old, new) for word in words]
        if words[0] == "python":
            return [sys.executable, *words[1:]]
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]

    @contextlib.contextmanager
    def started(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """The service's process; at the end its runs go with it, as they do in a container."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self._command(services()[name]["command"]),
                env=self._environment(name),
                stdout=log,
                stderr=log,
                cwd=self.state,
                start_new_session=True,
            )
        try:
            yield process
            assert process.poll() is None, f"{name} ended: {self.log(name).read_text()[-2000:]}"
            # What asks the code server to start runs or shows them ends before it, as Compose has it.
            told_at = time.monotonic()
            process.terminate()
            process.wait(PATIENCE)
            assert time.monotonic() - told_at < SECONDS_TO_END, f"{name} did not end in time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> Path:
        """What the service wrote."""
        return self._folder / f"{name}.log"

    def listens(self, port: str) -> bool:
        """Whether anybody does on the port that Compose knows by this number; asking costs nothing."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.ports[port]))) == 0

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        command = self._command(services()[name]["healthcheck"]["test"][1:])
        return subprocess.run(command, env=self._environment(name), capture_output=True, check=False).returncode == 0

    def told(self, name: str, *command: str) -> str:
        """What a command run by hand in the service says; raises AssertionError when it fails."""
        where = {"DAGSTER_HOST": "127.0.0.1", "DAGSTER_PORT": self.ports["3000"]}
        done = subprocess.run(
            self._command(list(command)),
            env={**self._environment(name), **where},
            cwd=self.state,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_a_run_materializes_the_marts_and_its_history_is_in_postgres(
    empty_warehouse: Warehouse, tmp_path: Path
) -> None:
    chain = Chain(empty_warehouse.settings, tmp_path)
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    with postgres() as database, contextlib.ExitStack() as stack:
        dagster = Deployed(tmp_path, database, empty_warehouse)
        code = stack.enter_context(dagster.started("dagster-code"))
        web = stack.enter_context(dagster.started("dagster-webserver"))
        daemon = stack.enter_context(dagster.started("dagster-daemon"))
        eventually("the code server", lambda: dagster.listens("4000"), code)
        eventually("the webserver", lambda: dagster.listens("3000") and dagster.is_healthy("dagster-webserver"), web)

        # As soon as it can be, which is while the sensor starts the first run by itself.
        assert "fresh" in dagster.told("migrate", "retention", "refresh")

        assert daemon.poll() is None
        assert dagster.is_healthy("dagster-code") and dagster.is_healthy("dagster-daemon")
        expected = oracle.marts(EVENTS, VIDEOS)
        summaries = chain.mart("engagement_summary")
        assert {video: row["views"] for video, row in summaries.items()} == {
            video: row["views"] for video, row in expected.engagement_summary.items()
        }
        with contextlib.closing(connection(database)) as asked, asked.cursor() as rows:
            rows.execute("select count(*) from runs where status = 'SUCCESS' and pipeline_name = 'marts'")
            assert rows.fetchone() != (0,)
            rows.execute("select count(*) from event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'")
            assert rows.fetchone() != (0,)
        page = httpx.get(f"http://127.0.0.1:{dagster.ports['3000']}/dagster/runs", trust_env=False)
        assert page.status_code == 200 and '"/dagster' in page.text
        written = [path for path in (dagster.home, dagster.state) for path in path.rglob("*") if path.suffix == ".db"]
        assert written == [], "something is kept in SQLite"
        assert sorted(path.name for path in dagster.home.iterdir()) == ["dagster.yaml", "workspace.yaml"]
    told = [json.loads(line) for line in dagster.log("dagster-webserver").read_text().splitlines()]
    assert any("dagster-webserver" in record["logger"] for record in told)
    # Warnings of what is underneath Dagster stay as they are.
    lines = dagster.log("dagster-daemon").read_text().splitlines()
    assert any(json.loads(line)["logger"].startswith("dagster.daemon") for line in lines if line.startswith("{"))
    chain.client.close()
