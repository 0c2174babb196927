"""Definitions of tables and views as files of the data folder, before the engine opens it.

One file that was cut short as it was written, which takes a full disk, keeps the engine from opening the folder at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Where in the folder they are put: among the definitions the engine takes no other file.
ASIDE = "cut_definitions"


def put_aside(folder: Path) -> Iterator[str]:
    """Put the definitions that are cut short into `ASIDE`; the file that each was, within the folder.

    What such a table holds stays in the folder, as far as anything was stored: its definition never got to the disk.
    """
    for file in sorted(folder.glob("store/*/*/*.sql")):
        if _is_cut(file):
            aside = folder / ASIDE
            aside.mkdir(exist_ok=True)
            file.replace(aside / f"{file.parent.name}.{file.name}")
            yield str(file.relative_to(folder))


def _is_cut(file: Path) -> bool:
    """The engine ends each with a line break."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - 1))
        return opened.read() != b"\n"
