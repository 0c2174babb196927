"""Reports as files: their names, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import re
import uuid
from pathlib import Path

from retention_platform.errors import RetentionError
from retention_platform.report import interactive
from retention_platform.report.make import Format, picture_of, written
from retention_platform.report.model import Document

_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_HASH_DIGITS = 12


def file_name(video_id: str) -> str:
    """A file's name, without ending, that no other video has on any file system, and that an id cannot break."""
    hashed = hashlib.sha256(video_id.encode()).hexdigest()[:_HASH_DIGITS]
    # An id that looks like another's name with a hash could take its place; capitals are the same name to some systems.
    looks_hashed = re.search(rf"-[0-9a-f]{{{_HASH_DIGITS}}}$", video_id)
    if _PLAIN_NAME.fullmatch(video_id) and not looks_hashed:
        return video_id
    readable = re.sub(r"[^a-z0-9]+", "-", video_id.lower()).strip("-")[:60]
    return f"{readable or 'video'}-{hashed}"


def write_beside(document: Document, wanted: Format, to: Path) -> list[Path]:
    """Write a report, and with Markdown its picture beside it; the files written.

    Raises RetentionError, in one line, when a file cannot be written.
    """
    picture = picture_of(document) if wanted is Format.MARKDOWN else None
    beside = to.with_name(f"{to.name}.svg") if to.suffix.lower() == ".svg" else to.with_suffix(".svg")
    files = {to: written(document, wanted, picture=beside.name if picture else None)}
    if picture:
        files[beside] = picture
    for path, text in files.items():
        write(path, text)
    return list(files)


def write_all(document: Document, folder: Path, name: str, script: str) -> None:
    """Write a report as HTML, Markdown and SVG; ``script`` is the address of plotly.js from ``folder``."""
    write(folder / f"{name}.html", written(document, Format.HTML, script=script))
    picture = picture_of(document)
    write(folder / f"{name}.md", written(document, Format.MARKDOWN, picture=f"{name}.svg" if picture else None))
    if picture:
        write(folder / f"{name}.svg", picture)


def write_script(folder: Path) -> str:
    """Put plotly.js, which is most of a page, once into a folder of many pages; its file's name."""
    name = f"plotly-{interactive.plotly_version()}.min.js"
    if not (folder / name).exists():
        write(folder / name, interactive.plotly_js())
    return name


def write(path: Path, text: str) -> None:
    """Write a file in one step: who reads it sees the old one or the new one."""
    unfinished = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if path.exists() and not path.is_file():
            # A terminal or a pipe is written to, never replaced.
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        try:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise RetentionError(f"cannot write {path}: {error.strerror}") from None
