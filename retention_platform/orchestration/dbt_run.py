"""dbt in this process: a build as a stream of dbt's own result events, and what failed as one error.

dagster-dbt starts dbt as a process of its own, after asking it for its version in another one: 5 s of imports that the
run worker has done already. Events become Dagster's by dagster-dbt's own translation, in `models`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retention_platform.errors import RetentionError
from retention_platform.orchestration.dbt_project import PARSED, TARGET, prepare_manifest
from retention_platform.orchestration.failures import is_transient
from retention_platform.settings import DBT_PROJECT_DIR

if TYPE_CHECKING:
    from retention_platform.settings import Settings

#: dbt's events that tell a node's result.
RESULT_EVENTS = {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult"}

#: dbt keeps flags, adapters and loggers in module globals: one invocation at a time.
_ONE_AT_A_TIME = threading.Lock()


class DbtError(RetentionError):
    """A dbt command that failed; ``transient`` when every one of its errors may be gone the next time."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class NodeResult:
    """How one model or test ended: dbt's status and message."""

    name: str
    status: str
    message: str

    @property
    def failed(self) -> bool:
        """Whether it makes the command fail; a skipped node is the consequence of another's failure."""
        return self.status in ("error", "fail", "runtime error", "partial success")


def environment(settings: Settings) -> dict[str, str]:
    """The variables that profiles.yml reads: settings may come from a running stack's file as well."""
    # dbt's adapter has no option for an authority: the variable that OpenSSL reads is its only way to learn of one.
    authority = {"SSL_CERT_FILE": str(settings.clickhouse_ca)} if settings.clickhouse_ca else {}
    return {
        **authority,
        "CLICKHOUSE_HOST": settings.clickhouse_host,
        "CLICKHOUSE_PORT": str(settings.clickhouse_port),
        "CLICKHOUSE_USER": settings.clickhouse_user,
        "CLICKHOUSE_PASSWORD": settings.clickhouse_password.get_secret_value(),
        "CLICKHOUSE_CLUSTER": settings.clickhouse_cluster,
        "CLICKHOUSE_SECURE": "true" if settings.clickhouse_secure else "false",
        "CLICKHOUSE_VERIFY": "true" if settings.clickhouse_verify else "false",
        "DO_NOT_TRACK": "1",
    }


def stream(arguments: Sequence[str], settings: Settings, folder: Path) -> Iterator[dict[str, Any]]:
    """Run a dbt command; yields each node's result as dbt logs it, while dbt goes on.

    Compiled SQL and dbt's log of the last command are kept in ``folder``. Raises DbtError at the end when dbt failed.
    """
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(_invoke(arguments, folder, events))
        finally:
            events.put(None)

    with _ONE_AT_A_TIME, _environment(environment(settings)):
        # A daemon: a run that is cancelled must not wait for dbt.
        thread = threading.Thread(target=run, name="dbt", daemon=True)
        thread.start()
        while (event := events.get()) is not None:
            yield event
        thread.join()
    if not outcome:
        raise DbtError(f"dbt {arguments[0]} broke off: see {folder}/dbt.log", transient=False)
    _raise_on_failure(arguments[0], outcome[0])


def _invoke(arguments: Sequence[str], folder: Path, events: queue.SimpleQueue[dict[str, Any] | None]) -> Any:
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt_common.events.functions import msg_to_dict

    def on_event(event: Any) -> None:
        if event.info.name in RESULT_EVENTS:
            events.put(msg_to_dict(event))

    prepare_manifest()
    # Not by partial parsing, which looks at every file again and starts anew when a variable of profiles.yml differs.
    manifest = Manifest.from_msgpack((DBT_PROJECT_DIR / TARGET / PARSED).read_bytes())
    where = ["--project-dir", str(DBT_PROJECT_DIR), "--profiles-dir", str(DBT_PROJECT_DIR)]
    where += ["--target-path", str(folder), "--log-path", str(folder)]
    flags = ["--no-use-colors", "--no-write-json", "--log-level-file", "info"]
    return dbtRunner(manifest=manifest, callbacks=[on_event]).invoke([*flags, *arguments, *where])


def _raise_on_failure(command: str, outcome: Any) -> None:
    if outcome.success:
        return
    results = [
        NodeResult(result.node.name, str(result.status), str(result.message or ""))
        for result in getattr(outcome.result, "results", ())
    ]
    raise failure_of(command, results, outcome.exception)


def failure_of(command: str, results: Sequence[NodeResult], exception: BaseException | None) -> DbtError:
    """The error for a failed command: how many nodes failed and the first one's reason, or what dbt raised."""
    failed = [result for result in results if result.failed]
    if not failed:
        return DbtError(f"dbt {command}: {_one_line(str(exception))}", transient=is_transient(str(exception)))
    first = failed[0]
    return DbtError(
        f"dbt {command}: {len(failed)} of {len(results)} failed; {first.name}: {_one_line(first.message)}",
        transient=all(result.status == "error" and is_transient(result.message) for result in failed),
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process for a while: dbt reads profiles from nowhere else."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
