"""Loads chDB without the engine that its import opens, asks for its version and closes again.

Behind that first engine no other can read from Kafka: what it shut down stays shut for the whole process, and a table
with the engine Kafka says "Shutdown was called".
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType


class _NoEngine:
    """In place of the connection that the import asks for its version: it knows none."""

    def query(self, *_: object) -> _NoEngine:
        return self

    def bytes(self) -> bytes:
        return b'""\n'

    def close(self) -> None:
        pass


def load() -> tuple[ModuleType, ModuleType]:
    """The package ``chdb`` and its extension; no engine was opened by this. Raises ImportError where it is missing."""
    if "chdb" not in sys.modules:
        extension = _extension()
        connect = extension.connect
        extension.connect = lambda *_: _NoEngine()  # type: ignore[attr-defined]
        try:
            importlib.import_module("chdb")
        finally:
            extension.connect = connect  # type: ignore[attr-defined]
    return sys.modules["chdb"], sys.modules["chdb._chdb"]


def _extension() -> ModuleType:
    """The module ``chdb._chdb``, loaded before the package that it belongs to and as that one would."""
    package = importlib.util.find_spec("chdb")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'chdb'", name="chdb")
    (library,) = Path(package.submodule_search_locations[0]).glob("_chdb.*so")
    if sys.platform == "linux":
        # Its own allocator, whatever other libraries of C++ brought theirs.
        ctypes.CDLL(str(library), mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    spec = importlib.util.spec_from_file_location("chdb._chdb", library)
    assert spec is not None and spec.loader is not None
    extension = sys.modules["chdb._chdb"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension
