"""Other players' logs to contract events: pure functions, one file a format. `run` publishes what they give."""

from __future__ import annotations

from retention_platform.importers import edx, jsonl, xapi
from retention_platform.importers.reading import Importer

#: What `retention import` and `retention convert` understand.
FORMATS: dict[str, Importer] = {"edx": edx.convert, "jsonl": jsonl.convert, "xapi": xapi.convert}
