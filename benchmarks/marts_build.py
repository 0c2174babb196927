"""dbt's models of the curve, run in this process and timed one by one; what the engine says each statement took.

Owns no data and no comparison: it starts what it is told to start, and looks.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from dbt.cli.main import dbtRunner

from retention_platform.errors import RetentionError
from retention_platform.orchestration.dbt_run import environment
from retention_platform.settings import DBT_PROJECT_DIR, Settings
from retention_platform.warehouse.client import connect

#: The mart, and with the plus all that it is made from.
CURVE = "retention_curve"
#: Batches of a benchmark follow each other in seconds: with the look back of production each refresh would do the
#: batches before it again.
_VARS = "{late_insert_window_seconds: 0}"
#: Seconds between two looks at the statements under way.
LOOK = 0.05

_NODE = re.compile(r'"node_id": "model\.\w+\.(\w+)"')
_LABEL = re.compile(r"/\* benchmark: (.+?) \*/")


@dataclass(frozen=True)
class Built:
    """One run of dbt."""

    #: Model to the seconds its statements took, in the order they ran; views included.
    models: Mapping[str, float]
    #: From the command to its end: dbt's own start as well.
    wall: float

    @property
    def seconds(self) -> float:
        """What the models took, dbt's start apart."""
        return sum(self.models.values())


class Dbt:
    """dbt over one warehouse."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._manifest = self._invoke(dbtRunner(), "parse").result

    def build(self, *, full: bool, select: Sequence[str] = (f"+{CURVE}",)) -> Built:
        """Build the curve and all it is made from, or what is selected: whole, or what changed. Raises RetentionError.

        An empty selection is everything.
        """
        begin = time.perf_counter()
        chosen = ["--select", *select] if select else []
        arguments = ["run", *chosen, *(["--full-refresh"] if full else [])]
        outcome = self._invoke(dbtRunner(manifest=self._manifest), *arguments)
        wall = time.perf_counter() - begin
        models = [result for result in outcome.result.results if result.node.resource_type == "model"]
        return Built({model.node.name: _executing(model) for model in models}, wall)

    def _invoke(self, runner: dbtRunner, *arguments: str) -> Any:
        where = ["--project-dir", str(DBT_PROJECT_DIR), "--profiles-dir", str(DBT_PROJECT_DIR), "--vars", _VARS]
        where += ["--target-path", str(self._folder / "target"), "--log-path", str(self._folder / "logs")]
        with mock.patch.dict(os.environ, environment(self._settings)):
            outcome = runner.invoke(["--quiet", "--no-use-colors", *arguments, *where])
        if not outcome.success:
            results = getattr(outcome.result, "results", ())
            failed = [f"{result.node.name}: {result.message}" for result in results if result.status == "error"]
            raise RetentionError(f"dbt {arguments[0]}: {' '.join((failed or [str(outcome.exception)])[0].split())}")
        return outcome


def _executing(result: Any) -> float:
    step = next(step for step in result.timing if step.name == "execute")
    return float((step.completed_at - step.started_at).total_seconds())


def labelled(label: str, sql: str) -> str:
    """A statement that `Watch` knows by this name."""
    return f"/* benchmark: {label} */ {sql}"


class Watch:
    """While the block runs: the memory of each statement by the engine's own figure, and what the server has resident.

    Statements are models, by dbt's comment in them, or `labelled`. What ends within `LOOK` seconds may not be seen.
    """

    def __init__(self, settings: Settings, pid: int) -> None:
        self._client = connect(settings)
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        #: Name to the most bytes any statement of it took.
        self.peaks: dict[str, int] = {}
        #: The most bytes the server had.
        self.resident = 0

    def _look(self) -> None:
        # The look itself is a statement as well, without a name.
        sql = "select query, peak_memory_usage from system.processes"
        while not self._ended.wait(LOOK):
            for query, peak in self._client.query(sql).result_rows:
                if found := _LABEL.search(query) or _NODE.search(query):
                    self.peaks[found[1]] = max(self.peaks.get(found[1], 0), int(peak))
            self.resident = max(self.resident, int(self._process.memory_info().rss))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()
