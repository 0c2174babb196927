"""`retention up` and `retention down`: the stack's life from the first check to the last process gone.

Starting: own the state folder, find the ports free, start part after part and wait for each, load history the first
time, refresh the marts through Dagster, then watch. Stopping: producer, drain, ingest, the rest. Whatever goes wrong
on the way stops everything that was started and is told in one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import httpx
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from retention_platform.embedded.stack import (
    LOOPBACK,
    STOP_ORDER,
    Home,
    Program,
    child_environment,
    programs,
    stack_env,
    uses_own_broker,
    uses_own_clickhouse,
    workspace_yaml,
)
from retention_platform.embedded.supervisor import Supervisor
from retention_platform.errors import RetentionError
from retention_platform.ingest.broker import ensure_topics, group_lag
from retention_platform.orchestration.lost_runs import cancel_lost_runs
from retention_platform.orchestration.storage import prepare_storage
from retention_platform.settings import PROJECT_ROOT, Settings, get_settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

#: How long each part may take to become ready, in seconds.
READY_SECONDS = 90.0
#: How long ingest may take to store what is still on the topic when the stack stops, in seconds.
DRAIN_SECONDS = 3.5


class Stack:
    """One run of the stack, from start to stop; owns the state folder while it lives."""

    def __init__(self, settings: Settings, home: Home, console: Console) -> None:
        self.settings = settings
        self.home = home
        self.console = console
        self.supervisor = Supervisor(home)
        self._programs: dict[str, Program] = {}
        self._started: set[str] = set()
        self._pids: set[int] = set()
        self._supervisord: subprocess.Popen[bytes] | None = None

    # -- steps

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show one step while it runs, and what it took."""
        began = time.monotonic()
        with self.console.status(f"{title} …"):
            yield
        self.done(title, began)

    def done(self, title: str, began: float) -> None:
        """Tell that a step is done, and what it took."""
        self.console.print(f"  [green]✓[/green] {title:<42} [dim]{time.monotonic() - began:5.1f} s[/dim]")

    def start(self, name: str) -> None:
        """Start one program; does nothing for a part that this stack does not run itself."""
        if name in self._programs:
            self.supervisor.start(name)
            self._started.add(name)

    def wait_for(self, title: str, is_ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait until a part is ready, while watching that none dies."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise RetentionError(f"{title} was not ready after {seconds:.0f} s: see {self.home.logs}")
            time.sleep(0.1)

    def check_alive(self) -> None:
        """Raise RetentionError when a program that was started is there no more."""
        states = self.supervisor.states()
        if not states:
            raise RetentionError(f"the process manager died: see {self.home.logs}/supervisord.log")
        self._pids = {info["pid"] for info in states.values() if info["pid"]}
        for name in self._programs:
            state = states[name]
            if name in self._started and state["statename"] not in ("STARTING", "RUNNING"):
                raise RetentionError(
                    f"{self._programs[name].title} {self._how_it_died(name, state['exitstatus'])} "
                    f"[log: {self.supervisor.log(name)}]"
                )

    def _how_it_died(self, name: str, status: int) -> str:
        """Supervisord gives -1 for what a signal ended; such a process had no last words."""
        if status < 0:
            return "was killed"
        words = self.supervisor.last_words(name).removeprefix("error: ")
        return f"ended (exit status {status}): {words}" if words else f"ended (exit status {status})"

    # -- the story

    def bring_up(self, *, history: Callable[[Stack], bool] | None, live: tuple[str, ...] | None) -> None:
        """Start everything in order; returns when the stack is ready to use."""
        code_port = free_port()
        parts = programs(self.settings, self.home, code_port, live=live)
        self._programs = {program.name: program for program in parts}
        self.home.workspace.write_text(workspace_yaml(code_port), encoding="utf-8")
        shutil.copyfile(PROJECT_ROOT / "dagster.yaml", self.home.dagster / "dagster.yaml")
        self._supervisord = self.supervisor.launch(parts, child_environment(self.settings, self.home))

        self.start("broker")
        self.start("clickhouse")
        with self.step("dbt project parsed"):
            from retention_platform.orchestration.dbt_project import prepare_manifest

            prepare_manifest()
        prepare_storage(self.home.dagster)
        if uses_own_broker(self.settings):
            with self.step("Broker"):
                self.wait_for("the broker", self.home.broker_address.exists)
        self._publish_addresses()
        self.start("dagster-code")
        with self.step("ClickHouse"):
            if uses_own_clickhouse(self.settings):
                url = f"http://{LOOPBACK}:{self.settings.clickhouse_port}/ping"
                self.wait_for("ClickHouse", lambda: answers(url))
            client = connect(self.settings)
        with self.step("Schema and topics"):
            ensure_topics(self.settings)
            migrate(client, raw_ttl_days=self.settings.raw_ttl_days)
            client.close()
        for name in ("ingest", "dagster-webserver", "api", "docs", "dashboard"):
            self.start(name)
        # The second time the marts are there, and what is new is for Dagster's sensor to see.
        is_first = not self._has_marts()
        if history is not None:
            is_first |= history(self)
        dagster = self.settings.dagster_url
        with self.step("API"):
            api = f"http://{self.settings.api_host}:{self.settings.api_port}/"
            self.wait_for("the API", lambda: answers(api))
        with self.step("Documentation"):
            docs = f"http://{self.settings.docs_host}:{self.settings.docs_port}/health"
            self.wait_for("the documentation", lambda: answers(docs))
        with self.step("Dashboard"):
            self.wait_for("the dashboard", lambda: answers(f"{dashboard_url(self.settings)}/_stcore/health"))
        with self.step("Dagster"):
            self.wait_for("Dagster", lambda: answers(f"{dagster}/server_info"))
            # Nothing runs yet: what Dagster takes for running was cut off when the last stack stopped.
            cancel_lost_runs(dagster)
            self.start("dagster-daemon")
        if is_first:
            self._refresh_marts(dagster)
        self.start("producer")
        self.check_alive()

    def _publish_addresses(self) -> None:
        """Write where everything is to stack.env, for other terminals and for our own children."""
        values = {
            "CLICKHOUSE_PORT": str(self.settings.clickhouse_port),
            "API_PORT": str(self.settings.api_port),
            "API_BASE_URL": f"http://{self.settings.api_host}:{self.settings.api_port}",
            "DASHBOARD_PORT": str(self.settings.dashboard_port),
            "DAGSTER_PORT": str(self.settings.dagster_port),
            "DOCS_PORT": str(self.settings.docs_port),
        }
        if "ingest_metrics_port" not in self.settings.model_fields_set:
            # Off where nobody asks; here `retention status` does.
            values["INGEST_METRICS_PORT"] = str(free_port())
        if uses_own_broker(self.settings):
            values["KAFKA_BOOTSTRAP_SERVERS"] = self.home.broker_address.read_text(encoding="utf-8").strip()
            # The development broker knows no topic ids; it and all its topics are new at every start.
            values["KAFKA_LOG_ID"] = f"dev-{int(time.time() * 1000)}"
        self.home.stack_env.write_text(stack_env(values), encoding="utf-8")
        self.settings = load_settings(retention_home=self.home.path)

    def _has_marts(self) -> bool:
        client = connect(self.settings)
        # The migrations make one table in marts, for what is said about videos; dbt makes this one.
        found = client.query("exists table marts.engagement_summary").result_rows[0][0]
        client.close()
        return bool(found)

    def _refresh_marts(self, dagster: str) -> None:
        from retention_platform.orchestration.launch import launch_job

        with self.step("Marts, materialized by Dagster"):
            launch_job(dagster, "marts", on_progress=lambda _: self.check_alive())

    def watch(self) -> None:
        """Stay until interrupted; raise RetentionError when a part dies."""
        while True:
            self.check_alive()
            time.sleep(0.5)

    def take_down(self) -> None:
        """Stop everything that runs, in order; nothing is left when this returns."""
        self.home.ready.unlink(missing_ok=True)
        orphaned = self._supervisord is not None and self._supervisord.poll() is not None
        stop_in_order(self.supervisor, self.settings)
        if self._supervisord is not None:
            try:
                self._supervisord.wait(5)
            except subprocess.TimeoutExpired:
                self._supervisord.kill()
                self._supervisord.wait()
        for pid in self._pids if orphaned else ():
            # Supervisord itself had died: its children are ours to end. Each leads a process group of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.home.stack_env.unlink(missing_ok=True)


def stop_in_order(supervisor: Supervisor, settings: Settings) -> None:
    """Producer, drain, ingest and the rest, warehouse and broker, then supervisord itself."""
    for names in STOP_ORDER:
        if "ingest" in names:
            _drain(supervisor, settings)
        supervisor.stop(names, seconds=6)
    supervisor.shutdown()
    deadline = time.monotonic() + 3
    while supervisor.is_up() and time.monotonic() < deadline:
        time.sleep(0.05)


def _drain(supervisor: Supervisor, settings: Settings) -> None:
    """Give ingest the time to store what is on the topic; not when it or the broker is gone."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline:
        if supervisor.states().get("ingest", {}).get("statename") != "RUNNING":
            return
        try:
            if not any(place.lag for place in group_lag(settings, timeout=1.0)):
                return
        except RetentionError:
            return
        time.sleep(0.1)


def up(console: Console, *, history_days: int, sessions: int, viewers: str, simulate: bool) -> None:
    """Run the stack in the foreground until interrupted.

    Raises RetentionError, everything stopped, for a taken port, a folder in use, or a part that dies.
    """
    home = _make_home()
    lock = FileLock(home.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RetentionError(
            f"{home.path} is in use by another run (process {_read_pid(home) or 'unknown'}): "
            "stop it with `retention down`, or set RETENTION_HOME to another folder"
        ) from None
    with lock:
        if Supervisor(home).is_up():
            raise RetentionError("parts of an earlier run are still up: stop them with `retention down`")
        for stale in (home.ready, home.stack_env, home.broker_address, home.socket):
            stale.unlink(missing_ok=True)
        settings = load_settings(retention_home=home.path)
        check_ports(settings)
        home.pid.write_text(str(os.getpid()), encoding="utf-8")
        stack = Stack(settings, home, console)
        # SIGINT too: a shell starts its background jobs with it ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        try:
            began = time.monotonic()
            stack.bring_up(
                history=(lambda s: load_history(s, history_days, sessions)) if simulate else None,
                live=("--viewers", viewers) if simulate else None,
            )
            console.print(what_next(stack.settings, home, time.monotonic() - began))
            home.ready.write_text("ready\n", encoding="utf-8")
            stack.watch()
        except KeyboardInterrupt:
            pass
        finally:
            # From here on nothing may cut the stop short.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            began = time.monotonic()
            with console.status("stopping …"):
                stack.take_down()
            home.pid.unlink(missing_ok=True)
            console.print(f"stopped in {time.monotonic() - began:.1f} s; all data is kept in {home.path}")


def up_detached(console: Console, arguments: list[str]) -> None:
    """Run `retention up` in the background; returns when it is ready, raises RetentionError when it fails."""
    home = _make_home()
    log = home.logs / "up.log"
    home.ready.unlink(missing_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "retention_platform.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shown = 0
    while True:
        ended = process.poll() is not None
        text = log.read_text(encoding="utf-8", errors="replace")
        complete = text.rfind("\n") + 1
        if complete > shown:
            console.print(text[shown:complete].rstrip("\n"), markup=False, highlight=False)
            shown = complete
        if ended:
            raise RetentionError(f"the stack did not start: see {log}")
        if home.ready.exists():
            console.print(f"running in the background (process {process.pid}): `retention status`, `retention down`")
            return
        time.sleep(0.2)


def down(console: Console, *, seconds: float = 25.0) -> None:
    """Stop a run of the stack, wherever it was started. Raises RetentionError when it does not stop in time."""
    home = Home(get_settings().retention_home)
    supervisor = Supervisor(home)
    pid = _read_pid(home)
    if pid is not None and _is_locked(home):
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        with console.status("stopping …"):
            while _is_locked(home):
                if time.monotonic() - began > seconds:
                    raise RetentionError(f"process {pid} did not stop within {seconds:.0f} s: see {home.logs}")
                time.sleep(0.1)
            # The lock is free a moment before the process that held it is gone.
            while _exists(pid) and time.monotonic() - began < seconds:
                time.sleep(0.05)
        console.print(f"stopped in {time.monotonic() - began:.1f} s")
    elif supervisor.is_up():
        stop_in_order(supervisor, get_settings())
        home.stack_env.unlink(missing_ok=True)
        console.print("stopped what an earlier run had left")
    else:
        console.print(f"nothing runs in {home.path}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _make_home() -> Home:
    home = Home(get_settings().retention_home)
    try:
        for folder in (home.run, home.logs, home.dagster):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RetentionError(f"cannot use {home.path} as state folder ({error.strerror}): set RETENTION_HOME") from None
    return home


def _read_pid(home: Home) -> int | None:
    try:
        return int(home.pid.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_locked(home: Home) -> bool:
    lock = FileLock(home.lock)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def check_ports(settings: Settings) -> None:
    """Raise RetentionError naming the first port that something else listens on."""
    wanted = [
        ("Dagster", settings.dagster_host, settings.dagster_port, "DAGSTER_PORT"),
        ("the API", settings.api_host, settings.api_port, "API_PORT"),
        ("the documentation", settings.docs_host, settings.docs_port, "DOCS_PORT"),
        ("the dashboard", settings.dashboard_host, settings.dashboard_port, "DASHBOARD_PORT"),
    ]
    if uses_own_clickhouse(settings):
        wanted.insert(0, ("ClickHouse", LOOPBACK, settings.clickhouse_port, "CLICKHOUSE_PORT"))
    for title, host, port, variable in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise RetentionError(
                    f"port {port} for {title} cannot be used ({error.strerror}): "
                    f"stop what listens there, or choose another with {variable}=…"
                ) from None


def free_port() -> int:
    """A port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def dashboard_url(settings: Settings) -> str:
    """Where the dashboard is."""
    return f"http://{settings.dashboard_host}:{settings.dashboard_port}"


def answers(url: str) -> bool:
    """Whether a GET of ``url`` gives a 2xx within a second."""
    try:
        return httpx.get(url, timeout=1.0).is_success
    except httpx.HTTPError:
        return False


def load_history(stack: Stack, days: int, sessions: int) -> bool:
    """Publish the demo's history the first time, finish a load that was cut off, else do nothing; whether it loaded.

    The plan is written down before the first event: a load repeated from the same plan has the same event ids.
    """
    from producer.cli import publish_history

    path = stack.home.history
    if path.exists():
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan["done"]:
            return False
    else:
        client = connect(stack.settings)
        found = client.query("select count() from (select 1 from raw.playback_events limit 1)").result_rows[0][0]
        client.close()
        if found:
            return False  # a warehouse with events of its own wants no invented ones
        end = datetime.now(timezone.utc).replace(microsecond=0)
        plan = {"seed": 1, "days": days, "sessions": sessions, "end": end.isoformat(), "done": False}
        _write_json(path, plan)
    began = time.monotonic()
    events = publish_history(
        stack.settings,
        seed=plan["seed"],
        days=plan["days"],
        sessions=plan["sessions"],
        end=datetime.fromisoformat(plan["end"]),
        console=stack.console,
    )
    _write_json(path, {**plan, "done": True})
    stack.done(f"{plan['days']} days of history, {events:,} events", began)
    return True


def _write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def what_next(settings: Settings, home: Home, seconds: float) -> Table:
    """The table shown when the stack is ready: where everything is and what to try."""
    table = Table(title=f"Retention is ready ({seconds:.0f} s)", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    api = f"http://{settings.api_host}:{settings.api_port}"
    table.add_row("Dashboard", dashboard_url(settings))
    table.add_row("Dagster", f"{settings.dagster_url}  assets, runs, lineage")
    table.add_row("API", f"{api}  (documentation: {api}/docs)")
    docs = f"http://{settings.docs_host}:{settings.docs_port}"
    table.add_row("Docs", f"{docs}  every table and column, and what it is made of")
    table.add_row("ClickHouse", f"http://{settings.clickhouse_host}:{settings.clickhouse_port}  (user default)")
    table.add_row("Broker", f"{settings.kafka_bootstrap_servers}  (Kafka API)")
    if settings.ingest_metrics_port:
        metrics = f"http://{settings.ingest_metrics_host}:{settings.ingest_metrics_port}/metrics"
        table.add_row("Ingest", f"{metrics}  (Prometheus)")
    table.add_row("State, logs", f"{home.path}")
    command = command_name()
    table.add_row("Try", f"{command} status")
    table.add_row("", f"curl {api}/videos")
    table.add_row("", f"{command} import xapi statements.json.gz")
    table.add_row("", f'{command} sql "select * from marts.engagement_summary"')
    table.add_row("Stop", f"Ctrl-C, or `{command} down` from another terminal")
    return table


def command_name() -> str:
    """How to call our command from here: by its name where the environment is active, else by its path."""
    own = Path(sys.executable).with_name("retention")
    if shutil.which("retention") == str(own):
        return "retention"
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)
