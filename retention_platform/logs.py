"""How our processes write their logs: lines for people, or one JSON object a line (``LOG_FORMAT=json``).

It owns form and place, always standard error; what is worth a line, each part decides. The one line that a user's
error ends in stays as it is: it may be about the settings that choose the form. Dagster's processes have a format
option of their own, which takes the same words.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, cast, get_args

from retention_platform.errors import SettingsError

LogFormat = Literal["colored", "json"]

#: What each record has; anything else in one was given as ``extra``.
_OF_EVERY_RECORD = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """A record as one JSON object on one line: timestamp (UTC), level, logger, event, exception, and its extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line: dict[str, object] = {
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        line.update({name: value for name, value in record.__dict__.items() if name not in _OF_EVERY_RECORD})
        # Not ASCII alone is escaped: nothing in a message can break a line or move a cursor.
        return json.dumps(line, default=str)


def to_stderr(form: LogFormat, level: int = logging.INFO) -> None:
    """Send the logs of this process to standard error from now on, and with ``json`` its uncaught exceptions too."""
    handler = logging.StreamHandler()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=level, handlers=[handler])
    if form == "json":
        handler.setFormatter(JsonLines())
        logging.captureWarnings(True)
        sys.excepthook = _uncaught
        threading.excepthook = lambda thrown: _uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)


def for_uvicorn(form: LogFormat) -> dict[str, Any]:
    """The options of uvicorn.Config with which it logs as the process does; its own lines for people."""
    return {"log_config": None, "log_level": "info"} if form == "json" else {}


def form_of(environment: Mapping[str, str]) -> LogFormat:
    """What ``LOG_FORMAT`` asks for, where no settings are read. Raises SettingsError for a word that is no form."""
    word = environment.get("LOG_FORMAT") or "colored"
    for form in get_args(LogFormat):
        if word == form:
            return cast(LogFormat, form)
    raise SettingsError(f"LOG_FORMAT={word!r} cannot be used: choose one of {', '.join(get_args(LogFormat))}")


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
    else:
        logging.getLogger("retention").critical("uncaught exception", exc_info=(kind, error or kind(), trace))
