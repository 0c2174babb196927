"""`retention report`: reads the marts, and writes a report to the terminal or into a file."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from retention_platform.errors import RetentionError
from retention_platform.settings import get_settings

if TYPE_CHECKING:
    from retention_platform.report.make import Format

console = Console(stderr=True)


def report(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="Its id; without one, --digest.")] = "",
    wanted: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="md, html or svg; else what FILE ends with, else md.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a file instead of the terminal.")
    ] = None,
    digest: Annotated[bool, typer.Option("--digest", help="Of all videos, over a week, instead of one.")] = False,
    week: Annotated[
        str, typer.Option("--week", metavar="DAY", help="With --digest: the week of this day; else the last whole one.")
    ] = "",
) -> None:
    """Report on a video: figures and what is typical, the curve, dropoffs, segments, data quality, definitions.

    [dim]retention report intro-to-sql -o intro.html[/dim] writes one page that works offline. Markdown in a file has
    its picture in an SVG beside it.
    """
    from retention_platform.report import digest as digests
    from retention_platform.report.facts import facts_of
    from retention_platform.report.files import write_beside
    from retention_platform.report.make import written
    from retention_platform.report.queries import asking, read
    from retention_platform.report.video import document
    from retention_platform.warehouse.client import connect

    if bool(video) == digest:
        raise RetentionError("name one video, or ask for --digest of all: retention report VIDEO")
    form = _format(wanted, to)
    now = datetime.now(timezone.utc)
    monday = digests.monday_of(digests.day_of(week) if week else digests.last_week(now))
    client = connect(get_settings())
    try:
        if digest:
            made = digests.document(digests.read(asking(client), monday), monday, now)
        else:
            made = document(facts_of(read(asking(client), video), video), now)
    finally:
        client.close()
    if to is None:
        typer.echo(written(made, form), nl=False)
        return
    for path in write_beside(made, form, to):
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def _format(wanted: str, to: Path | None) -> Format:
    from retention_platform.report.make import Format

    suffix = to.suffix.lower().lstrip(".") if to is not None else ""
    named = wanted.lower() or {"htm": "html", "markdown": "md"}.get(suffix, suffix)
    if wanted or named in set(Format):
        try:
            return Format(named)
        except ValueError:
            raise RetentionError(f"--format {wanted!r} is not known: md, html or svg") from None
    return Format.MARKDOWN
