"""Supervisord as our process manager: its configuration, its start, and its XML-RPC interface.

Supervisord keeps the processes; what order they start and stop in is decided by the caller.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from retention_platform.embedded.stack import Home, Program
from retention_platform.errors import RetentionError

#: Supervisord's words for a process that is there.
ALIVE = {"STARTING", "RUNNING", "STOPPING"}


def configuration(home: Home, programs: Iterable[Program]) -> str:
    """The text of supervisord.conf. Programs start and stop only when told to, and are never restarted."""
    user = "user=root\n" if os.getuid() == 0 else ""
    head = (
        "[supervisord]\nnodaemon=true\nsilent=true\n"
        f"{user}"
        f"logfile={_escape(home.logs / 'supervisord.log')}\nlogfile_maxbytes=1MB\nlogfile_backups=1\n"
        f"pidfile={_escape(home.run / 'supervisord.pid')}\nchildlogdir={_escape(home.logs)}\n\n"
        f"[unix_http_server]\nfile={_escape(home.socket)}\nchmod=0700\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
    )
    return head + "".join(
        f"\n[program:{program.name}]\n"
        f"command={' '.join(_quote(word) for word in program.command)}\n"
        f"directory={_escape(home.run)}\n"
        "autostart=false\nautorestart=false\nstartsecs=0\nstopsignal=TERM\nstopasgroup=true\nkillasgroup=true\n"
        f"stopwaitsecs={program.stop_seconds}\n"
        f"stdout_logfile={_escape(home.logs / (program.name + '.log'))}\n"
        "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=1\nredirect_stderr=true\n"
        for program in programs
    )


def _escape(value: Path | str) -> str:
    """A value in supervisord.conf: percent signs are its format characters."""
    return str(value).replace("%", "%%")


def _quote(word: str) -> str:
    return '"' + _escape(word).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Supervisor:
    """A running supervisord, reached through the state folder's socket."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def _rpc(self) -> Any:
        """Supervisord's interface over a connection of its own: one that failed once stays broken."""
        if not self._home.socket.exists():
            raise FileNotFoundError(self._home.socket)
        # Not in the deployed image, whose processes are another's to keep: there is no socket either.
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._home.socket}")
        return ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def launch(self, programs: Iterable[Program], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start supervisord over ``programs``, none of them started yet; returns its process."""
        config = self._home.run / "supervisord.conf"
        config.write_text(configuration(self._home, programs), encoding="utf-8")
        # The log is supervisord's own file; its output is only what it says before that is open.
        with (self._home.logs / "supervisord.out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal must reach us alone: we stop the parts in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self.is_up():
                return process
            if process.poll() is not None:
                break
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise RetentionError(f"the process manager did not start: see {self._home.logs}/supervisord.out")

    def is_up(self) -> bool:
        """Whether a supervisord answers on the socket."""
        try:
            return bool(self._rpc.getState()["statename"])
        except (OSError, HTTPException, Fault):
            return False

    def start(self, name: str) -> None:
        """Start one program, without waiting for it to be ready."""
        try:
            self._rpc.startProcess(name, False)
        except Fault as fault:
            raise RetentionError(f"{name} did not start ({fault.faultString}): see {self.log(name)}") from None

    def states(self) -> dict[str, dict[str, Any]]:
        """Program name to supervisord's information about it; empty when no supervisord is there."""
        try:
            return {info["name"]: info for info in self._rpc.getAllProcessInfo()}
        except (OSError, HTTPException):
            return {}

    def stop(self, names: Iterable[str], *, seconds: float) -> None:
        """Stop programs side by side and wait until they are gone, ``seconds`` at most."""
        names = set(names)
        for name in names:
            with contextlib.suppress(OSError, HTTPException, Fault):  # not running, or not part of this stack
                self._rpc.stopProcess(name, False)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.states()
            if not any(states[name]["statename"] in ALIVE for name in names & states.keys()):
                return
            time.sleep(0.05)

    def shutdown(self) -> None:
        """End supervisord and whatever still runs under it."""
        with contextlib.suppress(OSError, HTTPException, Fault):
            self._rpc.shutdown()

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._home.logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        """The last line of a program's log: most often why it died."""
        try:
            lines = self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip()[:300] if lines else ""
