"""Refreshes of the marts while events come: Dagster's job in a process of its own, now and then killed under way.

As a program it is that process: it runs the named jobs in Dagster, as a run's worker does, and says why one failed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from retention_platform.settings import Settings

_ENVIRONMENT = "CLICKHOUSE_HOST", "CLICKHOUSE_PORT", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_LOG_ID"


class Refresher(threading.Thread):
    """Refreshes, rests, refreshes again, until told to stop; of its refreshes a share is killed at a seeded moment."""

    def __init__(self, settings: Settings, folder: Path, seed: int, *, rest: float, killed: float) -> None:
        super().__init__(daemon=True)
        self._settings, self._folder = settings, folder
        self._rng = random.Random(f"refreshes {seed}")
        self._rest, self._share = rest, killed
        self._ending = threading.Event()
        self.log = folder / "refresh.log"
        #: Seconds that each one took that went through.
        self.seconds: list[float] = []
        self.killed = 0
        #: Failed by themselves: ClickHouse went away under them, say. The next makes it good.
        self.failed = 0

    def run(self) -> None:
        while not self._ending.wait(self._rest):
            # How long one takes is known when one went through.
            kill = bool(self.seconds) and self._rng.random() < self._share
            self.refresh(self.seconds[-1] * self._rng.uniform(0.4, 0.95) if kill else None)

    def refresh(self, killed_after: float | None = None, jobs: tuple[str, ...] = ("marts",)) -> bool:
        """Run the jobs; whether they went through. With ``killed_after`` they have so many seconds to live."""
        began = time.monotonic()
        process = self._start(jobs)
        while process.poll() is None:
            time.sleep(0.05)
            lived = time.monotonic() - began
            if self._ending.is_set() or (killed_after is not None and lived > killed_after):
                process.kill()
                process.wait()
                self.killed += 1
                return False
        if process.returncode == 0:
            self.seconds.append(time.monotonic() - began)
        else:
            self.failed += 1
        return process.returncode == 0

    def finish(self) -> None:
        """Start no more; one that is under way is killed."""
        self._ending.set()
        if self.ident is not None:
            self.join(60)
        self._ending.clear()

    def why(self) -> str:
        """The last line that a refresh wrote."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def _start(self, jobs: tuple[str, ...]) -> subprocess.Popen[bytes]:
        dagster = self._folder / "dagster"
        dagster.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            **{name: str(getattr(self._settings, name.lower())) for name in _ENVIRONMENT},
            "RETENTION_HOME": str(self._folder),
            "DAGSTER_HOME": str(dagster),
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", __name__, *jobs]
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def main() -> None:
    """Run jobs; exits with 1 and a line when one fails or one of its checks does."""
    import dagster as dg

    from retention_platform.definitions import defs

    with dg.DagsterInstance.get() as instance:
        for job in sys.argv[1:]:
            result = defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
            reasons = [
                str(data.user_failure_data.description if data.user_failure_data else data.error)
                for event in result.all_events
                if event.is_step_failure and (data := event.step_failure_data)
            ]
            reasons += [
                f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"
                for check in result.get_asset_check_evaluations()
                if not check.passed
            ]
            if reasons or not result.success:
                sys.exit(" ".join(f"{job}: {'; '.join(reasons) or 'failed'}".split()))


if __name__ == "__main__":
    main()
